from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import av
import pytest
import torch

from wan22.errors import Cancelled, InternalError, InvalidRequest, Reason
from wan22.parameters import Parameters
from wan22_inference.engine.generate import Run, generate
from wan22_inference.engine.model import Model
from wan22_inference.engine.progress import Progress, Stage

Make = Callable[..., Parameters]
Load = Callable[[str], Model]


def test_a_generation_becomes_an_mp4_stage_by_stage(
    tiny_model: Load, parameters: Make, picture: Callable[..., tuple[str, bytes]], tmp_path: Path
) -> None:
    media, png = picture(1)
    heard: list[Progress] = []
    chosen = parameters("i2v-a14b-tiny", image=media, num_frames=9, num_inference_steps=3, fps=12)
    path = tmp_path / "v.mp4"
    generate(
        tiny_model("i2v-a14b-tiny"), chosen, {media: png}, path, Run(report=heard.append, should_stop=lambda: False)
    )
    assert heard == [
        Progress(Stage.ENCODING_TEXT),
        Progress(Stage.ENCODING_IMAGE),
        *(Progress(Stage.DENOISING, step, 3) for step in range(4)),
        Progress(Stage.DECODING),
    ]
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.width, stream.codec_context.height) == (64, 96)
        assert stream.average_rate == 12
        assert sum(1 for _ in container.decode(stream)) == 9


def test_the_same_parameters_give_the_same_bytes_and_another_seed_others(
    tiny_model: Load, parameters: Make, tmp_path: Path
) -> None:
    def run(name: str, seed: int) -> bytes:
        chosen = parameters("ti2v-5b-tiny", seed=seed)
        model, path = tiny_model("ti2v-5b-tiny"), tmp_path / name
        generate(model, chosen, {}, path, Run(report=lambda _: None, should_stop=lambda: False))
        return path.read_bytes()

    assert run("a", 1) == run("b", 1)
    assert run("c", 2) != run("a", 1)


def test_a_stop_takes_effect_between_latent_frames(tiny_model: Load, parameters: Make, tmp_path: Path) -> None:
    heard: list[Progress] = []
    asked_while_decoding = 0

    def should_stop() -> bool:
        nonlocal asked_while_decoding
        if heard[-1].stage is Stage.DECODING:
            asked_while_decoding += 1
        return asked_while_decoding == 2

    with pytest.raises(Cancelled):
        generate(
            tiny_model("t2v-a14b-tiny"),
            parameters("t2v-a14b-tiny", num_frames=9),
            {},
            tmp_path / "v.mp4",
            Run(report=heard.append, should_stop=should_stop),
        )
    assert asked_while_decoding == 2


def test_a_prompt_that_is_too_long_names_its_field(tiny_model: Load, parameters: Make, tmp_path: Path) -> None:
    chosen = parameters("t2v-a14b-tiny", prompt="x" * 600)
    with pytest.raises(InvalidRequest, match="prompt has 602 tokens"):
        generate(
            tiny_model("t2v-a14b-tiny"),
            chosen,
            {},
            tmp_path / "v.mp4",
            Run(report=lambda _: None, should_stop=lambda: False),
        )


def test_frames_that_are_nan_are_never_a_video(tiny_model: Load) -> None:
    latents = torch.zeros(1, 16, 2, 8, 8)
    latents[:, :, 1] = float("nan")
    with pytest.raises(InternalError, match="first in latent frame 2") as caught:
        list(tiny_model("t2v-a14b-tiny").vae.decode(latents, lambda: None))
    assert caught.value.reason is Reason.NOT_FINITE


@pytest.mark.parametrize("variant", ["t2v-a14b-tiny", "ti2v-5b-tiny"])
def test_frames_come_latent_frame_by_latent_frame(tiny_model: Load, variant: str) -> None:
    model = tiny_model(variant)
    latents = torch.randn(1, model.variant.latent_channels, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    side = 4 * model.variant.spatial_stride
    whole = list(model.vae.decode(latents, lambda: None))
    start = list(model.vae.decode(latents[:, :, :2], lambda: None))
    assert [frame.shape for frame in whole] == [(side, side, 3)] * 9
    assert all((a == b).all() for a, b in zip(start, whole, strict=False))  # later latents change no earlier frame
