from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from wan22.errors import Cancelled, DataLoss
from wan22.pack.writer import pack_file
from wan22_inference.engine.loading.sources import open_source
from wan22_inference.engine.loading.verification import verify


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    save_file({"a": torch.randn(6 << 20)}, tmp_path / "t.safetensors")
    pack_file(tmp_path / "t.safetensors", tmp_path / "t.safetensors.pack", lambda _: None)
    return tmp_path / "t.safetensors.pack"


def test_whole_extents_pass_and_each_is_looked_at(packed: Path) -> None:
    source, calls = open_source(packed, packed.name), list[None]()
    with source.reader:
        verify([(source, extent) for extent in source.extents], lambda: calls.append(None))
    assert len(calls) == len(source.extents) > 2


def test_a_damaged_extent_is_named(packed: Path) -> None:
    source = open_source(packed, packed.name)
    content = bytearray(packed.read_bytes())
    content[source.extents[1].offset + 5] ^= 1
    packed.write_bytes(content)
    with source.reader, pytest.raises(DataLoss, match=f"pack is damaged: the extent at {source.extents[1].offset} "):
        verify([(source, extent) for extent in source.extents], lambda: None)


def test_it_can_be_ended(packed: Path) -> None:
    def stop() -> None:
        raise Cancelled("enough")

    source = open_source(packed, packed.name)
    with source.reader, pytest.raises(Cancelled, match="enough"):
        verify([(source, extent) for extent in source.extents], stop)
