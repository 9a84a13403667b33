"""Checkpoints of denoise loops at full latent size with cut DiTs and random weights; tiny on a CPU."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from wan22.solvers import Solver
from wan22_inference.engine.checkpoint import parse
from wan22_testing.forwards import free_memory

from .loop import LAYERS, STEPS, T2V, TI2V, TINY, Loop

Figures = list[dict[str, Any]]


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
    # A cut DiT is so quick that the host's copies show; of a whole DiT's step they must not take a twentieth.
    whole = without * loop.variant.num_layers / LAYERS
    figures.append(
        {
            "what": f"a step of {loop.variant.name}, 2 layers, with a checkpoint beside it whenever the last is done",
            "unit": "s",
            "value": beside,
            "goal": without + 0.05 * whole,
            "peer": without,
        }
    )
    assert beside - without < 0.05 * whole


@pytest.mark.parametrize("solver", list(Solver))
def test_each_step_is_resumed_from_at_tiny_sizes(solver: Solver) -> None:
    check_resuming(Loop(TINY, torch.device("cpu")), solver)


def test_steps_are_timed_at_tiny_sizes() -> None:
    tiny = Loop(TINY, torch.device("cpu"))
    tiny.run(num_steps=8)
    assert len(tiny.ends) == 7
    assert tiny.seconds_a_step() > 0.0
