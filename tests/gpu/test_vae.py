"""The VAE decoders at full size beside diffusers', by the same random weights; the same at tiny sizes on a CPU."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from wan22_inference.engine.devices import full_float32
from wan22_testing.decodes import (
    DECODE_21,
    DECODE_22,
    TINY_DECODE_21,
    TINY_DECODE_22,
    DecodeSides,
    Decoding,
    psnr,
)
from wan22_testing.forwards import error, free_memory, peak_bytes

Figures = list[dict[str, Any]]
FULL = {DECODE_21: {"id": "P7a", "goal": 0.9, "floor": 0.6}, DECODE_22: {"id": "P7b", "goal": 3.8, "floor": 2.8}}
"""Each with its row's id, goal and floor."""
TINY = [TINY_DECODE_21, TINY_DECODE_22]


def measure(work: Decoding, device: torch.device) -> dict[str, Any]:
    """A row of figures: seconds of a decode in bfloat16, ours as `value` and eager diffusers' as `peer`."""
    free_memory(device)
    sides = DecodeSides(work, device)
    with full_float32():
        reference = sides.theirs(torch.float32).cpu()
        free_memory(device)
        ours_float32 = error(sides.ours(torch.float32).cpu(), reference)
    free_memory(device)
    theirs = psnr(sides.theirs(torch.bfloat16).cpu(), reference)
    free_memory(device)
    peer = sides.time_theirs(torch.bfloat16, device)
    peer_peak = peak_bytes(device)
    free_memory(device)
    ours = psnr(sides.ours(torch.bfloat16).cpu(), reference)
    free_memory(device)
    return {
        "what": f"decode, {work}, bf16, frames on the host; peer: diffusers, eager, frames on the device",
        "unit": "s",
        "value": sides.time_ours(torch.bfloat16, device),
        "peer": peer,
        "peak_bytes": peak_bytes(device),
        "peer_peak_bytes": peer_peak,
        "psnr": ours,
        "peer_psnr": theirs,
        "float32_error": ours_float32,
    }


@pytest.mark.gpu
@pytest.mark.parametrize("work", FULL, ids=str)
def test_a_full_decode_is_faster_and_as_true_as_diffusers(work: Decoding, cuda: torch.device, figures: Figures) -> None:
    row = measure(work, cuda)
    figures.append(row | FULL[work])
    assert row["float32_error"] < 1e-4
    assert row["psnr"] >= row["peer_psnr"]
    assert row["value"] < row["peer"]


@pytest.mark.gpu
def test_tiles_at_full_size_give_the_frames_of_the_whole(cuda: torch.device, figures: Figures) -> None:
    free_memory(cuda)
    work = Decoding("2.1", {"base_dim": 96}, 832, 480, 9)
    sides = DecodeSides(work, cuda)
    with full_float32():
        difference = float((sides.ours(torch.float32, side=40) - sides.ours(torch.float32)).abs().max())
    what = f"largest difference of tiles to the whole in float32, {work}"
    figures.append({"what": what, "unit": "1", "value": difference, "goal": 1e-3})
    assert difference <= 1e-3


@pytest.mark.parametrize("work", TINY, ids=str)
def test_a_decode_is_measured_alike_at_tiny_sizes(work: Decoding) -> None:
    row = measure(work, torch.device("cpu"))
    assert row["float32_error"] < 1e-5
    assert abs(row["psnr"] - row["peer_psnr"]) < 3.0
    assert row["value"] > 0.0
    assert row["peer"] > 0.0
