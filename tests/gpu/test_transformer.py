"""The DiT at full width beside diffusers', by the same random weights; the same at tiny sizes on a CPU."""

from __future__ import annotations

import math
import time
from typing import Any

import pytest
import torch

from wan22.errors import Cancelled
from wan22_inference.engine.attention import choose
from wan22_inference.engine.devices import full_float32
from wan22_inference.engine.pace import MAX_BLOCKS_AHEAD, Pace
from wan22_testing.forwards import Work, error, free_memory, make_sides, peak_bytes, seconds
from wan22_testing.random_weights import outlier_channels
from wan22_testing.sizes import random_variant

Figures = list[dict[str, Any]]

CPU = torch.device("cpu")
SEEDS = (1, 2, 3)
FULL = [Work("t2v-a14b", 40, 832, 480, 81), Work("ti2v-5b", 30, 1280, 704, 121)]
CUT = [Work("t2v-a14b", 8, 480, 320, 17), Work("i2v-a14b", 8, 480, 320, 17), Work("ti2v-5b", 8, 480, 320, 17)]
"""8 layers, so that the float32 reference and its weights fit beside the others."""
GOALS = {
    "t2v-a14b": {"id": "P1", "goal": 2.36, "floor": 2.32},
    "ti2v-5b": {"id": "P6b", "goal": 0.76, "floor": 0.74},
}
"""Of one bfloat16 forward at full size on an H100, seconds."""
TINY = [Work(f"{work.variant}-tiny", 2, 128, 96, 17) for work in CUT]


def measure_errors(work: Work, device: torch.device) -> dict[str, list[float]]:
    """Relative errors to diffusers in float32 for each seed: of diffusers in bfloat16, and of ours in both."""
    errors: dict[str, list[float]] = {"theirs": [], "ours": [], "ours_float32": []}
    for seed in SEEDS:
        free_memory(device)
        sides = make_sides(work, seed, device)
        with full_float32():
            reference = sides.theirs(torch.float32)()
            errors["ours_float32"].append(error(sides.ours(torch.float32)(), reference))
        errors["theirs"].append(error(sides.theirs(torch.bfloat16)(), reference))
        errors["ours"].append(error(sides.ours(torch.bfloat16)(), reference))
    return errors


def measure_speed(work: Work, device: torch.device) -> dict[str, Any]:
    """A row of figures: seconds of one bfloat16 forward, ours as `value` and eager diffusers' as `peer`."""
    free_memory(device)
    sides = make_sides(work, SEEDS[0], device)
    theirs = sides.theirs(torch.bfloat16)
    reference, peer, theirs_peak = theirs(), seconds(theirs, device), peak_bytes(device)
    del theirs
    free_memory(device)
    ours = sides.ours(torch.bfloat16)
    return {
        "what": f"one forward, {work}, bf16; peer: diffusers, eager",
        "unit": "s",
        "value": seconds(ours, device),
        "peer": peer,
        "error": error(ours(), reference),
        "peak_bytes": peak_bytes(device),
        "peer_peak_bytes": theirs_peak,
        "attention": choose(device, torch.bfloat16, work.config["attention_head_dim"]).name,
    }


def mean(values: list[float]) -> float:
    return math.fsum(values) / len(values)


@pytest.mark.gpu
@pytest.mark.parametrize("work", CUT, ids=str)
def test_our_bfloat16_is_as_near_to_float32_as_diffusers(work: Work, cuda: torch.device, figures: Figures) -> None:
    errors = measure_errors(work, cuda)
    figures.append(
        {
            "what": f"relative error of bf16 to fp32, {work}; peer: diffusers",
            "unit": "1",
            "value": mean(errors["ours"]),
            "peer": mean(errors["theirs"]),
            "seeds": errors,
        }
    )
    assert max(errors["ours_float32"]) < 1e-4
    assert mean(errors["ours"]) <= 1.05 * mean(errors["theirs"])


@pytest.mark.gpu
@pytest.mark.parametrize("work", FULL, ids=str)
def test_a_full_forward_is_faster_than_eager_diffusers(work: Work, cuda: torch.device, figures: Figures) -> None:
    row = measure_speed(work, cuda)
    figures.append(row | GOALS[work.variant])
    assert math.isfinite(row["error"])
    assert row["value"] < row["peer"]


@pytest.mark.gpu
def test_a_stop_frees_the_device_within_a_second(cuda: torch.device, figures: Figures) -> None:
    """In the middle of a forward at the largest size that A14B takes, though the host could queue it whole."""
    asked: list[float] = []

    def should_stop() -> bool:
        asked.append(time.perf_counter())
        return len(asked) > 10

    free_memory(cuda)
    work = Work("t2v-a14b", 20, 1280, 720, 81)
    forward = make_sides(work, SEEDS[0], cuda).ours(torch.bfloat16, Pace(cuda, should_stop).check)
    with pytest.raises(Cancelled):
        forward()
    torch.cuda.synchronize(cuda)
    took = time.perf_counter() - asked[-1]
    figures.append({"what": f"from a stop to an idle device, {work}", "unit": "s", "value": took, "goal": 1.0})
    assert took < 1.0


@pytest.mark.gpu
def test_the_host_runs_at_most_two_blocks_ahead(cuda: torch.device) -> None:
    pace = Pace(cuda, lambda: False)
    blocks: list[torch.cuda.Event] = []
    for _ in range(6):
        pace.check()
        assert all(block.query() for block in blocks[:-MAX_BLOCKS_AHEAD])  # type: ignore[no-untyped-call]  # torch's
        torch.cuda._sleep(200_000_000)  # type: ignore[no-untyped-call]  # torch's; in cycles: a block of 0.1 s
        blocks.append(torch.cuda.current_stream(cuda).record_event())
    torch.cuda.synchronize(cuda)


@pytest.mark.parametrize("work", TINY, ids=str)
def test_errors_are_measured_alike_at_tiny_sizes(work: Work) -> None:
    errors = measure_errors(work, CPU)
    assert max(errors["ours_float32"]) < 1e-5
    assert 1e-3 < mean(errors["theirs"]) < 0.1  # the weights are neither tame nor wild
    assert mean(errors["ours"]) < 1.5 * mean(errors["theirs"])  # a seed counts for more at so few numbers


def test_speed_is_measured_alike_at_tiny_sizes() -> None:
    row = measure_speed(TINY[0], CPU)
    assert row["what"] == "one forward, t2v-a14b-tiny, 2 layers, 128x96x17, bf16; peer: diffusers, eager"
    assert row["value"] > 0.0
    assert row["peer"] > 0.0
    assert 0.0 < row["error"] < 0.1
    assert row["attention"] == "sdpa"


def test_a_few_channels_stand_out() -> None:
    sides = make_sides(TINY[0], 1, CPU)
    (channel,) = outlier_channels(random_variant("t2v-a14b-tiny").dim, 1)
    rows = sides.weights["blocks.1.ffn.net.2.weight"].float().norm(dim=1)
    assert int(rows.argmax()) == channel
    assert float(rows[channel] / rows.median()) > 5.0
