"""Makes videos of prompts by the engine, in this process: text encoder, DiT, sampler and VAE as a worker runs them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from torch import Tensor

from wan22.economy import EMPTY, Economy
from wan22.errors import Cancelled
from wan22.parameters import Parameters, RequestedParameters, resolve
from wan22.profiles import TURBO_STEPS, Profile
from wan22.variants import Variant
from wan22_bench.quality.examples import Example
from wan22_bench.quality.models import NotMeasured, Turbo
from wan22_bench.quality.pictures import as_png, as_values
from wan22_inference.engine.checkpoint import Checkpoint, parse
from wan22_inference.engine.checkpoint_writer import CheckpointWriter
from wan22_inference.engine.frame import Frame
from wan22_inference.engine.generate import Run, make_frames
from wan22_inference.engine.model import Model
from wan22_testing.shapes.world import FRAMES


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """What takes the place of a variant's defaults; of profile `turbo` only the side may be another."""

    steps: int | None = None
    guidance: float | None = None
    """Of both experts."""
    side: int | None = None
    """Pixels of width and height."""

    def side_of(self, variant: Variant) -> int:
        """Of its videos here."""
        return self.side or variant.width

    def steps_of(self, variant: Variant, *, turbo: bool) -> int:
        """Of each video."""
        return TURBO_STEPS if turbo else self.steps or variant.num_inference_steps


@dataclass(frozen=True, kw_only=True)
class Studio:
    """A model, and how its videos are made."""

    model: Model
    sampling: Sampling = field(default_factory=Sampling)
    economy: Economy = EMPTY
    turbo: Turbo | None = None
    """Given, the profile is `turbo`."""
    resumed: bool = False
    """Whether each video goes on from a checkpoint of half of its steps."""

    def video(self, example: Example, first_frame: Frame | None = None) -> Tensor:
        """Of one example, (3, frames, side, side) in [-1, 1] on the CPU. Raises NotMeasured of one step to resume."""
        images = {}
        if first_frame is not None:
            png = as_png(first_frame)
            images[f"media/{hashlib.sha256(png).hexdigest()}"] = png
        parameters = self._parameters(example, next(iter(images), None))
        resume = self._half(parameters, images) if self.resumed else None
        return as_values(make_frames(self.model, parameters, images, self._run(resume)))

    def _parameters(self, example: Example, image: str | None) -> Parameters:
        variant, sampling = self.model.variant, self.sampling
        side = sampling.side_of(variant)
        requested = RequestedParameters(
            prompt=example.prompt,
            width=side,
            height=side,
            num_frames=FRAMES,
            num_inference_steps=sampling.steps_of(variant, turbo=self.turbo is not None),
            guidance_scale_high=None if self.turbo else sampling.guidance,
            guidance_scale_low=None if self.turbo or variant.experts == 1 else sampling.guidance,
            image=image,
            profile=Profile.TURBO if self.turbo else None,
            loras=self.turbo.loras if self.turbo else (),
        )
        return resolve(variant, requested, image_size=None, draw_seed=lambda: example.seed)

    def _run(self, resume: Checkpoint | None = None) -> Run:
        return Run(
            report=lambda _: None,
            should_stop=lambda: False,
            resume=resume,
            economy=self.economy,
            adapters=self.turbo.adapters if self.turbo else {},
        )

    def _half(self, parameters: Parameters, images: dict[str, bytes]) -> Checkpoint:
        """After half of the steps; the rest of them is not waited for."""
        half = parameters.num_inference_steps // 2
        if half == 0:
            raise NotMeasured("one step has no half")
        kept: dict[int, bytes] = {}
        with CheckpointWriter(self.model.device, 0, kept.__setitem__) as checkpoints:
            run = Run(
                report=lambda _: None,
                should_stop=lambda: half in kept,
                checkpoints=checkpoints,
                economy=self.economy,
                adapters=self.turbo.adapters if self.turbo else {},
            )
            try:
                for _ in make_frames(self.model, parameters, images, run):
                    pass
            except Cancelled:
                pass
        return parse(kept[half], half)
