"""A denoise loop at full latent size with cut DiTs and random weights."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext

import torch
from torch import Tensor

from wan22.solvers import Solver
from wan22_inference.engine.checkpoint import Checkpoint
from wan22_inference.engine.checkpoint_writer import CheckpointWriter, Deliver
from wan22_inference.engine.condition import FirstFrame, TextOnly
from wan22_inference.engine.noise import draw_noise, latent_shape, make_generator
from wan22_inference.engine.preview import ShowPreview
from wan22_inference.engine.preview_writer import PreviewWriter
from wan22_inference.engine.rgb_projection import RgbProjection
from wan22_inference.engine.sampling import Expert, Text, denoise
from wan22_inference.engine.schedule import make_schedule
from wan22_testing.forwards import Work, random_transformer
from wan22_testing.sizes import random_variant

LAYERS = 2
"""Of the whole variants' 40 and 30."""
T2V, TI2V = Work("t2v-a14b", LAYERS, 832, 480, 81), Work("ti2v-5b", LAYERS, 1280, 704, 121)
TINY = Work("t2v-a14b-tiny", 1, 64, 64, 5)
STEPS = 5


class Loop:
    """A denoise loop that can be run again and again from the same noise."""

    def __init__(self, work: Work, device: torch.device) -> None:
        self.variant = random_variant(work.variant)
        self.device = device
        self.shape = latent_shape(self.variant, work.width, work.height, work.num_frames)
        transformers = [random_transformer(work, seed, device) for seed in range(self.variant.experts)]
        self.experts = [Expert(transformer, 2.0) for transformer in transformers]
        texts = torch.randn(2, 1, 512, 4096, generator=torch.Generator().manual_seed(0)).to(device)
        self.text = Text(texts[0], texts[1])
        self.condition = TextOnly() if self.variant.experts == 2 else FirstFrame(None)
        weights = torch.randn((self.variant.latent_channels, 3), generator=torch.Generator().manual_seed(1))
        self.projection = RgbProjection(0.2 * weights.to(device), torch.zeros(3, device=device))
        self.ends: list[float] = []
        """When each step of the last run had ended on the device."""

    @torch.inference_mode()
    def run(
        self,
        solver: Solver = Solver.UNIPC,
        *,
        num_steps: int = STEPS,
        interval: float = 3600.0,
        deliver: Deliver = lambda _step, _data: None,
        show: ShowPreview | None = None,
        resume: Checkpoint | None = None,
        share_start: bool = False,
    ) -> Tensor:
        """The final latents."""
        generator = make_generator(7)
        latents = draw_noise(self.shape, generator).to(self.device)
        boundary, shift = self.variant.boundary, self.variant.flow_shift
        schedule = make_schedule(solver, num_steps, shift, boundary, self.device, generator)
        if self.variant.experts == 2:
            assert 0 < schedule.high_steps < num_steps
        if resume is not None:
            schedule.restore(resume.step, resume.solver)
            latents = resume.latents.to(self.device)
        self.ends = []
        previews = nullcontext() if show is None else PreviewWriter(self.device, 1, 5.0, show)
        with CheckpointWriter(self.device, interval, deliver) as checkpoints, previews as shown:

            def after_step(step: int, latents: Tensor, clean: Callable[[], Tensor]) -> None:
                self.ends.append(time.perf_counter())  # the loop has just waited for the step, to look for NaN
                checkpoints.offer(lambda: Checkpoint(step, latents, schedule.history()))
                if shown is not None:
                    shown.offer(step, num_steps, lambda: self.projection.pictures(clean()))

            return denoise(
                latents,
                schedule,
                self.experts,
                self.condition,
                self.text,
                report=lambda _: None,
                should_stop=lambda: False,
                first_step=0 if resume is None else resume.step,
                share_start=share_start,
                after_step=after_step,
            )

    def seconds_a_step(self) -> float:
        """The mean over all steps of the last run but the first two, which warm up."""
        return (self.ends[-1] - self.ends[1]) / (len(self.ends) - 2)
