"""How extents are put into batches, so that any batch fits a group."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from wan22.pack.layout import EXTENT_BYTES
from wan22.pack.planes import FRAME_BYTES
from wan22.pack.writer import pack_file
from wan22_inference.engine.loading.device_loading import BATCH_BYTES
from wan22_inference.engine.loading.group import GROUP_BYTES, GROUP_FRAMES
from wan22_inference.engine.loading.plan import MAX_FRAMES, MAX_PIECES, Batch, Plan
from wan22_inference.engine.loading.sources import open_source


def batches_of(tensor: Tensor, path: Path) -> list[Batch]:
    save_file({"t": tensor}, path.with_name("plain"))
    pack_file(path.with_name("plain"), path, lambda _: None)
    source = open_source(path, path.name)
    with source.reader:
        return list(Plan([source], lambda *_: torch.empty_like(tensor), BATCH_BYTES).batches())


def test_a_batch_of_zeros_which_are_stored_small_has_no_more_frames_than_is_allowed(tmp_path: Path) -> None:
    zeros = torch.zeros(160 << 20, dtype=torch.uint8).view(torch.float8_e4m3fn)
    batches = batches_of(zeros, tmp_path / "t.safetensors.pack")
    frames = [sum(piece.extent.length for piece in batch.pieces) // FRAME_BYTES for batch in batches]
    assert frames == [MAX_FRAMES, MAX_FRAMES, 1280 - 2 * MAX_FRAMES]


def test_a_batch_has_no_more_extents_than_is_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wan22.pack.writer.EXTENT_BYTES", 8 << 10)
    zeros = torch.zeros(1_200 * 4 << 10, dtype=torch.uint8)
    batches = batches_of(zeros.view(torch.bfloat16), tmp_path / "t.safetensors.pack")
    assert max(len(batch.pieces) for batch in batches) == MAX_PIECES


def test_an_empty_group_has_room_for_any_batch() -> None:
    assert BATCH_BYTES <= GROUP_BYTES
    assert MAX_FRAMES <= GROUP_FRAMES
    assert EXTENT_BYTES <= BATCH_BYTES
    assert EXTENT_BYTES // FRAME_BYTES <= MAX_FRAMES  # words of one byte
