"""Our pipeline against diffusers', on the same weights and with the same sigmas."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    AutoencoderKLWan,
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    UniPCMultistepScheduler,
    WanImageToVideoPipeline,
    WanPipeline,
    WanTransformer3DModel,
)
from PIL import Image
from safetensors.torch import load_file
from transformers import PreTrainedTokenizerFast, UMT5EncoderModel

from wan22.parameters import Parameters
from wan22.solvers import Solver
from wan22_inference.engine.generate import Run, make_frames
from wan22_inference.engine.model import Model
from wan22_testing.tiny_models import shared_folder

Picture = Callable[..., tuple[str, bytes]]
ONE_LEVEL = 1.0 + 1e-3
"""Of 255; the reference is not rounded."""


OFFICIAL = {"solver": Solver.UNIPC}
"""The published variants' solver, where none is asked for."""


class OfficialSigmas(UniPCMultistepScheduler):  # type: ignore[misc]  # diffusers is untyped
    """The scheduler as the pipelines call it, with the official sigmas."""

    def set_timesteps(self, num_inference_steps: int, device: torch.device) -> None:
        super().set_timesteps(sigmas=np.linspace(0.999, 0, num_inference_steps + 1)[:-1], device=device)


class OfficialDpmSigmas(DPMSolverMultistepScheduler):  # type: ignore[misc]  # diffusers is untyped
    """DPM-Solver++ with the official sigmas and timesteps, which diffusers takes from nobody."""

    def set_timesteps(self, num_inference_steps: int, device: torch.device) -> None:
        super().set_timesteps(num_inference_steps, device=device)
        plain = np.linspace(1, 0, num_inference_steps + 1)  # torch's rounds otherwise, which boundaries can feel
        shift = self.config.flow_shift
        sigmas = torch.from_numpy(shift * plain / (1 + (shift - 1) * plain))
        self.sigmas = sigmas.float()
        self.timesteps = (1000 * sigmas)[:-1].long()


class EqualSteps(FlowMatchEulerDiscreteScheduler):  # type: ignore[misc]  # diffusers is untyped
    """Euler over sigmas from 1 to 0 in equal parts before the shift."""

    def set_timesteps(self, num_inference_steps: int, device: torch.device) -> None:
        super().set_timesteps(sigmas=np.linspace(1, 0, num_inference_steps + 1)[:-1], device=device)


def scheduler(parameters: Parameters) -> Any:
    flow = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": parameters.flow_shift}
    if parameters.solver is Solver.DPMPP:
        return OfficialDpmSigmas(**flow)
    if parameters.solver is Solver.EULER:
        return EqualSteps(shift=parameters.flow_shift)
    return OfficialSigmas(**flow)


def reference(parameters: Parameters, variant: str, images: dict[str, bytes]) -> np.ndarray[Any, Any]:
    """The frames that diffusers makes, (F, H, W, 3) in [0, 255], from modules loaded by diffusers' own means."""
    folder = shared_folder(variant)
    components: dict[str, Any] = {
        "tokenizer": PreTrainedTokenizerFast.from_pretrained(folder / "tokenizer"),
        "text_encoder": UMT5EncoderModel.from_pretrained(folder / "text_encoder"),
        "vae": load(AutoencoderKLWan, folder / "vae"),
        "scheduler": scheduler(parameters),
        "transformer": load(WanTransformer3DModel, folder / "transformer"),
        "expand_timesteps": parameters.boundary is None,
    }
    if parameters.boundary is not None:
        components["boundary_ratio"] = parameters.boundary
        components["transformer_2"] = load(WanTransformer3DModel, folder / "transformer_2")
    arguments: dict[str, Any] = {
        name: Image.open(io.BytesIO(images[media]))
        for name, media in (("image", parameters.image), ("last_image", parameters.last_image))
        if media is not None
    }
    pipeline = (WanImageToVideoPipeline if arguments else WanPipeline)(**components)
    pipeline.set_progress_bar_config(disable=True)
    frames = pipeline(
        prompt=parameters.prompt,
        negative_prompt=parameters.negative_prompt,
        width=parameters.width,
        height=parameters.height,
        num_frames=parameters.num_frames,
        num_inference_steps=parameters.num_inference_steps,
        guidance_scale=parameters.guidance_scale_high,
        guidance_scale_2=parameters.guidance_scale_low,
        generator=torch.Generator().manual_seed(parameters.seed),
        **arguments,
    ).frames[0]
    return np.asarray(frames) * 255.0


def load(kind: Any, folder: Path) -> Any:
    module = kind.from_config(json.loads((folder / "config.json").read_text()))
    module.load_state_dict(load_file(folder / "diffusion_pytorch_model.safetensors"))
    return module.eval()


@pytest.fixture
def ours(tiny_model: Callable[[str], Model]) -> Callable[..., np.ndarray[Any, Any]]:
    """Our frames as they enter the MP4, (F, H, W, 3) in [0, 255]."""

    def run(parameters: Parameters, variant: str, images: dict[str, bytes]) -> np.ndarray[Any, Any]:
        frames = make_frames(
            tiny_model(variant), parameters, images, Run(report=lambda _: None, should_stop=lambda: False)
        )
        return np.stack(list(frames)).astype(float)

    return run


@pytest.mark.parametrize(
    ("variant", "pictures", "given"),
    [
        ("t2v-a14b-tiny", (), {}),
        ("t2v-a14b-tiny", (), {"guidance_scale_high": 1.0, "guidance_scale_low": 1.0}),
        ("t2v-a14b-tiny", (), {"width": 128, "num_frames": 9, "num_inference_steps": 7, "flow_shift": 5.0}),
        ("t2v-a14b-tiny", (), {"num_frames": 1, "num_inference_steps": 1}),
        ("t2v-a14b-tiny", (), {"num_frames": 9, "solver": Solver.DPMPP}),
        ("t2v-a14b-tiny", (), {"num_frames": 9, "solver": Solver.EULER}),
        ("i2v-a14b-tiny", ("image",), {"num_frames": 9, "solver": Solver.DPMPP}),
        ("ti2v-5b-tiny", ("image",), {"num_frames": 9, "solver": Solver.EULER}),
        ("i2v-a14b-tiny", ("image",), {}),
        ("i2v-a14b-tiny", ("image",), {"guidance_scale_high": 1.0, "guidance_scale_low": 1.0}),
        ("i2v-a14b-tiny", ("image", "last_image"), {"num_frames": 9}),
        ("ti2v-5b-tiny", (), {"num_frames": 9}),
        ("ti2v-5b-tiny", (), {"guidance_scale_high": 1.0, "width": 128}),
        ("ti2v-5b-tiny", ("image",), {"num_frames": 9}),
        ("ti2v-5b-tiny", ("image",), {"guidance_scale_high": 1.0}),
    ],
)
def test_frames_equal_those_of_diffusers_within_one_level(
    ours: Callable[..., np.ndarray[Any, Any]],
    parameters: Callable[..., Parameters],
    picture: Picture,
    variant: str,
    pictures: tuple[str, ...],
    given: dict[str, Any],
) -> None:
    width = given.get("width", 64)
    media = {field: picture(seed, width) for seed, field in enumerate(pictures)}
    chosen = parameters(variant, **OFFICIAL | given, **{field: name for field, (name, _) in media.items()})
    images = dict(media.values())
    frames = ours(chosen, variant, images)
    expected = reference(chosen, variant, images)
    assert frames.shape == expected.shape == (chosen.num_frames, chosen.height, chosen.width, 3)
    assert np.abs(frames - expected).max() <= ONE_LEVEL
    assert frames.std() > 10.0  # not two equal grey videos


def test_each_expert_is_guided_by_its_own_scale(
    ours: Callable[..., np.ndarray[Any, Any]], parameters: Callable[..., Parameters]
) -> None:
    """diffusers switches guidance off for both experts by the first scale; 3.0 for the second must still count."""
    variant = "t2v-a14b-tiny"
    both_off = ours(parameters(variant, **OFFICIAL, guidance_scale_high=1.0, guidance_scale_low=1.0), variant, {})
    low_on = ours(parameters(variant, **OFFICIAL, guidance_scale_high=1.0, guidance_scale_low=3.0), variant, {})
    high_on = ours(parameters(variant, **OFFICIAL, guidance_scale_high=4.0, guidance_scale_low=1.0), variant, {})
    assert np.abs(low_on - both_off).max() > 10.0
    assert np.abs(high_on - both_off).max() > 10.0
    assert np.abs(high_on - low_on).max() > 10.0
