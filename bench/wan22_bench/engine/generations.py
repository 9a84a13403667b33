"""Whole generations with random weights, from the prompt to the MP4, and the device's wait between two."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import torch

from wan22.parameters import Parameters, RequestedParameters, resolve
from wan22.profiles import Profile
from wan22.variants import VARIANTS
from wan22_bench.engine.decodes import peer_seconds as peer_decode_seconds
from wan22_bench.engine.device_memory import DeviceMemory
from wan22_bench.engine.forwards import Forwards
from wan22_bench.engine.generation_goals import GOALS, MAX_WAIT, WAIT, Goal
from wan22_bench.engine.scale import Scale, vae_config
from wan22_bench.engine.waits import seconds_between
from wan22_bench.report import Row
from wan22_inference.engine.generate import Run, generate
from wan22_inference.engine.model import Model
from wan22_inference.engine.noise import make_generator
from wan22_inference.engine.options import EngineOptions
from wan22_inference.engine.progress import Progress, Stage
from wan22_inference.engine.schedule import make_schedule
from wan22_testing.forwards import Work, free_memory
from wan22_testing.modes import Mode
from wan22_testing.random_model import make_model

TIMED_STEPS = 6
"""Of a generation that is not run whole: by t2v-a14b's shift and boundary, 4 of one expert and 2 of the other."""
WARMING_STEPS = 2
"""Of a first one, which loads kernels and takes memory."""
PROMPT = "a cat on a beach"


@dataclass
class Timing:
    """What one generation took, seconds."""

    total: float = 0.0
    steps: list[tuple[int, float]] = field(default_factory=list)
    """The expert of each step but the first of each expert, which also makes the texts' keys and values."""
    denoising: float = 0.0
    """From the first step's begin to the last one's end."""
    before: float = 0.0
    """Of the text, up to the first step."""

    @property
    def parts(self) -> str:
        """Where the time went, to be read."""
        after = self.total - self.before - self.denoising
        return f"{self.before:.2f} s to the first step, {self.denoising:.2f} s of steps, {after:.2f} s to the MP4"

    def scaled(self, counts: Mapping[int, int]) -> float:
        """The total if each expert ran so many steps."""
        a_step = {
            expert: median(took for other, took in self.steps if other == expert)
            for expert in {e for e, _ in self.steps}
        }
        return self.total - self.denoising + sum(count * a_step[expert] for expert, count in counts.items())


def rows(ids: set[str], scale: Scale, device: torch.device, forwards: Forwards, *, whole: bool) -> Iterator[Row]:
    """The rows of these ids; `whole` runs every step of each, where else a few are timed and scaled."""
    chosen = [goal for goal in GOALS if goal.id in ids]
    work = scale.generation
    peers = {mode: forwards.peer_seconds(work, mode) for mode in dict.fromkeys(goal.mode for goal in chosen)}
    forwards.let_go()
    peer_decode = peer_decode_seconds("P7a", scale, device) if chosen else 0.0
    for mode in Mode:
        goals = [goal for goal in chosen if goal.mode is mode]
        waits = WAIT in ids and mode is (chosen[0].mode if chosen else Mode.BF16)
        if not goals and not waits:
            continue
        free_memory(device)
        options = EngineOptions(attention8=mode.attention8)
        vae = vae_config(scale, work.variant)
        model = make_model(work, scale.text_encoder, vae, device, options, fp8=mode.fp8)
        for goal in goals:
            yield _row(goal, scale, model, peers[mode], peer_decode, whole=whole)
        if waits:
            yield _wait_row(scale, model)
        del model


def parameters_of(work: Work, num_steps: int | None, *, turbo: bool = False, image: str | None = None) -> Parameters:
    """A request's for that size; all steps of the profile where their number is None."""
    requested = RequestedParameters(
        prompt=PROMPT,
        width=work.width,
        height=work.height,
        num_frames=work.num_frames,
        num_inference_steps=num_steps,
        profile=Profile.TURBO if turbo else None,
        image=image,
        seed=7,
    )
    size = (work.width, work.height) if image else None
    return resolve(VARIANTS[work.variant], requested, image_size=size, draw_seed=lambda: 0)


def steps_by_expert(parameters: Parameters) -> dict[int, int]:
    """How many steps each expert runs."""
    device, generator = torch.device("cpu"), make_generator(0)
    count, shift = parameters.num_inference_steps, parameters.flow_shift
    schedule = make_schedule(parameters.solver, count, shift, parameters.boundary, device, generator)
    return {0: schedule.high_steps, 1: count - schedule.high_steps}


def forwards_of(parameters: Parameters) -> int:
    """Forwards of the DiT in all steps: two in a step that is guided."""
    scales = (parameters.guidance_scale_high, parameters.guidance_scale_low)
    return sum(
        count * (1 if scales[expert] in {None, 1.0} else 2) for expert, count in steps_by_expert(parameters).items()
    )


def time_generation(model: Model, parameters: Parameters, images: Mapping[str, bytes] | None = None) -> Timing:
    """Makes a video and throws it away."""
    timing = Timing()
    moments: list[tuple[Stage, float]] = []
    experts = steps_by_expert(parameters)

    def report(progress: Progress) -> None:
        if progress.economy is not None:
            return
        if progress.step is None and model.device.type == "cuda":
            torch.cuda.synchronize(model.device)
        moments.append((progress.stage, time.perf_counter()))
        step = progress.step or 0
        if step >= 1 and step - 1 not in {0, experts[0]}:  # a step's end has waited for the device, to look for NaN
            timing.steps.append((int(step > experts[0]), moments[-1][1] - moments[-2][1]))

    with TemporaryDirectory() as folder:
        began = time.perf_counter()
        run = Run(report=report, should_stop=lambda: False)
        generate(model, parameters, images or {}, Path(folder) / "video.mp4", run)
        timing.total = time.perf_counter() - began
    denoising = [moment for stage, moment in moments if stage is Stage.DENOISING]
    timing.denoising = denoising[-1] - denoising[0]
    timing.before = denoising[0] - began
    return timing


def _row(goal: Goal, scale: Scale, model: Model, peer: float, peer_decode: float, *, whole: bool) -> Row:
    work = scale.generation
    asked = parameters_of(work, None, turbo=goal.turbo)
    few = asked.num_inference_steps <= TIMED_STEPS
    time_generation(model, parameters_of(work, WARMING_STEPS))
    with DeviceMemory(model.device) as memory:
        timing = time_generation(model, asked if few or whole else parameters_of(work, TIMED_STEPS))
    counts = steps_by_expert(asked)
    scaled = not (few or whole)
    forwards = forwards_of(asked)
    steps = f"{asked.num_inference_steps} steps" + ("" if goal.turbo else " with guidance")
    how = f"; {TIMED_STEPS} steps timed and scaled to {counts[0]} and {counts[1]}" if scaled else ""
    return Row(
        id=goal.id,
        what=f"a whole generation, {work}, {steps}, {goal.mode.value}, prompt to MP4{how} ({timing.parts}); "
        f"peer: {forwards} forwards of diffusers' and its eager decode, one of each timed",
        value=timing.scaled(counts) if scaled else timing.total,
        unit="s",
        goal=None if scale.dry else goal.goal,
        floor=None if scale.dry else goal.floor,
        peer=forwards * peer + peer_decode,
        peak_bytes=memory.peak,
    )


def _wait_row(scale: Scale, model: Model) -> Row:
    work = scale.generation
    what = "from the last kernel of a generation" if model.device.type == "cuda" else "from a generation's last frame"
    return Row(
        id=WAIT,
        what=f"{what} to the first of the next one's DiT, which was prepared meanwhile, {work}",
        value=seconds_between(model, parameters_of(work, 2)),
        unit="s",
        goal=None if scale.dry else MAX_WAIT,
        floor=None if scale.dry else 0.0,
    )
