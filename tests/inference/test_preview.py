"""Previews: small pictures of the predicted clean latents, which change nothing of the video."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from wan22.parameters import Parameters
from wan22.previews import MAX_BYTES, webp_size
from wan22_inference.engine.arrivals import Arrivals
from wan22_inference.engine.generate import Run, generate
from wan22_inference.engine.model import VAE, Model
from wan22_inference.engine.preview import MAX_PICTURES, Preview, make_preview
from wan22_inference.engine.preview_writer import PreviewWriter
from wan22_inference.engine.progress import Check
from wan22_inference.engine.rgb_projection import RgbProjection, fit_rgb_projection

CPU = torch.device("cpu")
STEPS = 5


class LinearVae:
    """A VAE whose latents' colours are a linear map of six channels, the same for all pixels of a latent."""

    stride = 8

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(3)
        self.encoding = torch.randn((6, 3), generator=generator)
        self.colours = torch.linalg.pinv(self.encoding)
        self.bias = torch.tensor([0.1, -0.2, 0.3])

    def encode(self, video: Tensor, check: Check) -> Tensor:
        first, rest = video[:, :, :1], video[:, :, 1:5].mean(dim=2, keepdim=True)
        small = torch.nn.functional.avg_pool3d(torch.cat([first, rest], dim=2), (1, self.stride, self.stride))
        return torch.einsum("lc,bcthw->blthw", self.encoding, 0.3 * small)

    def decode_pixels(self, latents: Tensor, check: Check) -> Iterator[Tensor]:
        for index in range(latents.shape[2]):
            colours = torch.einsum("cl,blhw->bchw", self.colours, latents[:, :, index])
            colours = 0.2 * colours + self.bias.view(1, 3, 1, 1)
            whole = colours.repeat_interleave(self.stride, 2).repeat_interleave(self.stride, 3)
            yield whole[:, :, None].expand(-1, -1, 4 if index else 1, -1, -1)


def previewed(
    model: Model, parameters: Parameters, path: Path, interval: int, images: dict[str, bytes] | None = None
) -> tuple[bytes, list[Preview]]:
    """The video, and the previews, none of them passed over."""
    shown: list[Preview] = []
    with Patient(CPU, interval, 2.0, shown.append) as previews:
        generate(
            model,
            parameters,
            images or {},
            path,
            Run(report=lambda _: None, should_stop=lambda: False, previews=previews),
        )
    return path.read_bytes(), shown


class Patient(PreviewWriter):
    """Waits for each preview: tiny models make steps faster than pictures."""

    def offer(self, step: int, num_steps: int, make: Callable[[], Tensor]) -> None:
        super().offer(step, num_steps, make)
        if self._pending is not None:
            self._pending.result()


@pytest.mark.parametrize(
    ("variant", "solver"), [("t2v-a14b-tiny", "LCM"), ("i2v-a14b-tiny", "DPMPP"), ("ti2v-5b-tiny", "UNIPC")]
)
def test_previews_change_no_bit_of_the_video(
    tiny_model: Callable[[str], Model],
    parameters: Callable[..., Parameters],
    picture: Callable[..., tuple[str, bytes]],
    tmp_path: Path,
    variant: str,
    solver: str,
) -> None:
    media, png = picture(1)
    image = {} if variant.startswith("t2v") else {"image": media}
    model, chosen = tiny_model(variant), parameters(variant, num_inference_steps=STEPS, solver=solver, **image)
    plain = tmp_path / "plain.mp4"
    generate(model, chosen, {media: png}, plain, Run(report=lambda _: None, should_stop=lambda: False))
    video, shown = previewed(model, chosen, tmp_path / "previewed.mp4", 2, {media: png})
    assert video == plain.read_bytes()
    assert [(preview.step, preview.num_steps) for preview in shown] == [(2, STEPS), (4, STEPS)]
    stride = model.vae.config.spatial_stride
    assert {webp_size(preview.image) for preview in shown} == {(64 // stride, 96 // stride)}


def test_none_is_made_until_the_vae_is_here_or_after_the_last_step(
    tiny_model: Callable[[str], Model], parameters: Callable[..., Parameters], tmp_path: Path
) -> None:
    whole = tiny_model("t2v-a14b-tiny")
    arrivals = Arrivals([VAE])
    model = Model(whole.variant, CPU, whole.text_encoder, whole.transformers, whole.vae, whole.placement, arrivals)
    shown: list[Preview] = []
    steps: list[int] = []

    def between() -> None:
        steps.append(len(steps) + 1)
        if len(steps) == 3:
            arrivals.arrive(VAE)

    with Patient(CPU, 1, 2.0, shown.append) as previews:
        run = Run(report=lambda _: None, should_stop=lambda: False, previews=previews, between_steps=between)
        generate(model, parameters("t2v-a14b-tiny", num_inference_steps=STEPS), {}, tmp_path / "v.mp4", run)
    assert [preview.step for preview in shown] == [4]


def test_a_linear_vae_is_projected_exactly() -> None:
    vae = LinearVae()
    projection = fit_rgb_projection(vae, vae.stride, CPU)
    latents = torch.randn((1, 6, 3, 4, 5), generator=torch.Generator().manual_seed(1))
    pictures = projection.pictures(latents)
    decoded = torch.cat([pixels[0, :, 0, :: vae.stride, :: vae.stride] for pixels in _frames(vae, latents)], dim=1)
    wanted = ((decoded.clamp(-1, 1) + 1) * 127.5).reshape(3, 3, 4, 5).permute(1, 2, 3, 0)
    assert pictures.dtype is torch.uint8
    assert (pictures.float() - wanted).abs().max() <= 2


def _frames(vae: LinearVae, latents: Tensor) -> Iterator[Tensor]:
    for pixels in vae.decode_pixels(latents, lambda: None):
        yield pixels.transpose(1, 2).flatten(1, 1).transpose(1, 2)


@pytest.mark.parametrize(("latent_frames", "count"), [(1, 1), (8, 8), (9, 5), (21, 7), (61, 8)])
def test_at_most_eight_pictures_are_spread_over_the_video(latent_frames: int, count: int) -> None:
    projection = RgbProjection(torch.eye(3), torch.zeros(3))
    latents = torch.linspace(-1, 1, latent_frames).view(1, 1, -1, 1, 1).expand(1, 3, -1, 2, 2)
    pictures = projection.pictures(latents)
    assert pictures.shape == (count, 2, 2, 3)
    assert count <= MAX_PICTURES
    assert np.all(np.diff(pictures[:, 0, 0, 0].int().numpy()) > 0)


@settings(max_examples=15)
@given(st.integers(1, 12), st.integers(4, 192), st.integers(4, 192), st.integers(0, 2**32 - 1))
def test_a_preview_is_small_whatever_it_shows(frames: int, height: int, width: int, seed: int) -> None:
    noise = np.random.default_rng(seed).integers(0, 256, (frames, height, width, 3), dtype=np.uint8)
    made = make_preview(3, 40, noise, 5.0)
    assert (made.step, made.num_steps, made.width, made.height) == (3, 40, width, height)
    assert len(made.image) <= MAX_BYTES
    assert webp_size(made.image) == (width, height)


def test_a_preview_is_a_webp_that_lasts_as_long_as_the_video() -> None:
    levels = np.linspace(0, 255, 5, dtype=np.uint8)
    made = make_preview(1, 4, np.broadcast_to(levels[:, None, None, None], (5, 6, 8, 3)).copy(), 2.5)
    with Image.open(io.BytesIO(made.image)) as image:
        assert (image.format, image.size, getattr(image, "n_frames", 1)) == ("WEBP", (8, 6), 5)
        shown = []
        for number in range(5):
            image.seek(number)
            image.load()
            shown.append(image.info["duration"])
        assert shown == [500] * 5


def test_a_preview_that_is_still_being_made_makes_no_step_wait() -> None:
    go_on, shown = threading.Event(), []

    def show(preview: Preview) -> None:
        go_on.wait(60)
        shown.append(preview.step)

    with PreviewWriter(CPU, 1, 1.0, show) as writer:
        for step in (1, 2):
            writer.offer(step, 9, lambda: torch.zeros((1, 4, 4, 3), dtype=torch.uint8))
        go_on.set()
    assert shown == [1]


def test_what_goes_wrong_costs_the_previews_and_not_the_generation(caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> Tensor:
        raise torch.OutOfMemoryError("no room")

    with PreviewWriter(CPU, 1, 1.0, lambda _: pytest.fail("shown")) as writer:
        for step in (1, 2):
            writer.offer(step, 9, fail)
    assert caplog.messages == ["No previews are made from step 1 on: no room"]


@pytest.mark.parametrize(
    "data", [b"", b"RIFF", b"\xff\xd8\xff" * 20, b"RIFF\x16\x00\x00\x00WEBPVP8L" + bytes(14), bytes(100)]
)
def test_other_files_have_no_webp_size(data: bytes) -> None:
    assert webp_size(data) is None
