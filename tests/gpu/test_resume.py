"""Checkpoints of denoise loops at full latent size with cut DiTs and random weights; tiny on a CPU."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from wan22.solvers import Solver
from wan22.variants import VARIANTS
from wan22_inference.engine.checkpoint import Checkpoint, parse
from wan22_inference.engine.checkpoint_writer import CheckpointWriter, Deliver
from wan22_inference.engine.condition import FirstFrame, TextOnly
from wan22_inference.engine.noise import draw_noise, latent_shape, make_generator
from wan22_inference.engine.sampling import Expert, Text, denoise
from wan22_inference.engine.schedule import make_schedule
from wan22_testing.forwards import Work, free_memory, random_transformer

Figures = list[dict[str, Any]]
T2V, TI2V = Work("t2v-a14b", 2, 832, 480, 81), Work("ti2v-5b", 2, 1280, 704, 121)
TINY = Work("t2v-a14b-tiny", 1, 64, 64, 5)
STEPS = 5


class Loop:
    """A denoise loop that can be run again and again from the same noise."""

    def __init__(self, work: Work, device: torch.device) -> None:
        self.variant = VARIANTS[work.variant]
        self.device = device
        self.shape = latent_shape(self.variant, work.width, work.height, work.num_frames)
        transformers = [random_transformer(work, seed, device) for seed in range(self.variant.experts)]
        self.experts = [Expert(transformer, 2.0) for transformer in transformers]
        texts = torch.randn(2, 1, 512, 4096, generator=torch.Generator().manual_seed(0)).to(device)
        self.text = Text(texts[0], texts[1])
        self.condition = TextOnly() if self.variant.experts == 2 else FirstFrame(None)
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
        resume: Checkpoint | None = None,
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
        with CheckpointWriter(self.device, interval, deliver) as writer:

            def after_step(step: int, latents: Tensor, _clean: Callable[[], Tensor]) -> None:
                self.ends.append(time.perf_counter())  # the loop has just waited for the step, to look for NaN
                writer.offer(lambda: Checkpoint(step, latents, schedule.history()))

            return denoise(
                latents,
                schedule,
                self.experts,
                self.condition,
                self.text,
                report=lambda _: None,
                should_stop=lambda: False,
                first_step=0 if resume is None else resume.step,
                after_step=after_step,
            )

    def seconds_a_step(self) -> float:
        """The mean over all steps of the last run but the first two, which warm up."""
        return (self.ends[-1] - self.ends[1]) / (len(self.ends) - 2)


def check_resuming(loop: Loop, solver: Solver) -> dict[int, bytes]:
    """Compares the latents resumed from each step with the undisturbed ones; the checkpoints."""
    undisturbed = loop.run(solver)
    taken: dict[int, bytes] = {}
    assert torch.equal(loop.run(solver, interval=0, deliver=taken.__setitem__), undisturbed)
    assert sorted(taken) == list(range(1, STEPS))
    for step, data in taken.items():
        assert torch.equal(loop.run(solver, resume=parse(data, step)), undisturbed)
    return taken


@pytest.fixture(scope="module", params=[T2V, TI2V], ids=str)
def loop(request: pytest.FixtureRequest, cuda: torch.device) -> Iterator[Loop]:
    yield Loop(request.param, cuda)
    free_memory(cuda)


@pytest.mark.gpu
@pytest.mark.parametrize("solver", list(Solver))
def test_each_step_is_resumed_from_to_the_same_bits(loop: Loop, solver: Solver, figures: Figures) -> None:
    taken = check_resuming(loop, solver)
    if solver is Solver.UNIPC:
        size = max(map(len, taken.values()))
        assert size < 1.02 * (34e6 if loop.variant.experts == 2 else 84e6)
        figures.append({"what": f"a checkpoint of {loop.variant.name}", "unit": "bytes", "value": size})


@pytest.mark.gpu
def test_checkpoints_do_not_stall_the_steps(loop: Loop, figures: Figures) -> None:
    taken: list[int] = []
    loop.run(num_steps=12)
    without = loop.seconds_a_step()
    loop.run(num_steps=12, interval=1e-9, deliver=lambda step, _: taken.append(step))
    beside = loop.seconds_a_step()
    assert len(taken) >= 3
    figures.append(
        {
            "what": f"a step of {loop.variant.name}, 2 layers, with a checkpoint beside it whenever the last is done",
            "unit": "s",
            "value": beside,
            "peer": without,
        }
    )
    assert beside < 1.05 * without


@pytest.mark.parametrize("solver", list(Solver))
def test_each_step_is_resumed_from_at_tiny_sizes(solver: Solver) -> None:
    check_resuming(Loop(TINY, torch.device("cpu")), solver)


def test_steps_are_timed_at_tiny_sizes() -> None:
    tiny = Loop(TINY, torch.device("cpu"))
    tiny.run(num_steps=8)
    assert len(tiny.ends) == 7
    assert tiny.seconds_a_step() > 0.0
