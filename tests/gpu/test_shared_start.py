"""What the two forwards of a guided step share, at full latent size with cut DiTs and random weights; tiny on a CPU."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from wan22_testing.forwards import Work, free_memory

from .loop import T2V, TI2V, TINY, Loop

Figures = list[dict[str, Any]]
STEPS = 8


def check_sharing(loop: Loop) -> tuple[float, float]:
    """Compares the latents with and without sharing; seconds a step with and without."""
    apart = loop.run(num_steps=STEPS)
    without = loop.seconds_a_step()
    shared = loop.run(num_steps=STEPS, share_start=True)
    assert torch.equal(shared, apart)
    return loop.seconds_a_step(), without


@pytest.mark.gpu
@pytest.mark.parametrize("work", [T2V, TI2V], ids=str)
def test_a_shared_start_changes_no_bits(work: Work, cuda: torch.device, figures: Figures) -> None:
    loop = Loop(work, cuda)
    shared, apart = check_sharing(loop)
    what = f"a step of {loop.variant.name}, 2 layers, whose first self-attention is computed once for both texts"
    figures.append({"what": what, "unit": "s", "value": shared, "peer": apart})
    del loop
    free_memory(cuda)


def test_a_shared_start_changes_no_bits_at_tiny_sizes() -> None:
    check_sharing(Loop(TINY, torch.device("cpu")))
