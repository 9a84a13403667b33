from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from wan22.errors import Cancelled, DataLoss
from wan22.pack.writer import pack_file
from wan22_inference.engine.loading import loader as loaders
from wan22_inference.engine.loading.frames import PlainDecoder
from wan22_inference.engine.loading.loader import WeightLoader
from wan22_inference.engine.loading.sources import open_source
from wan22_inference.engine.loading.verification import verify
from wan22_testing.damaged_pack import damage_plane


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


TENSORS = {
    "eight": torch.randn(300_001).to(torch.float8_e4m3fn),
    "half": torch.randn(2_000_001).to(torch.bfloat16),
    "full": torch.randn(400_003),
}


@pytest.mark.parametrize("kinds", [("eight", "half"), ("eight", "full"), ("eight", "half", "full")])
@pytest.mark.parametrize("decodes", ["there", "on the host"])
def test_damage_that_decodes_is_found_behind_at_the_latest(
    kinds: tuple[str, ...], decodes: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a GPU loads it, by the lane that decodes on the device, which is the CPU here; and by a lane of the host."""
    tensors = {name: TENSORS[name] for name in kinds}
    save_file(tensors, tmp_path / "whole.safetensors")
    pack_file(tmp_path / "whole.safetensors", tmp_path / "whole.safetensors.pack", lambda _: None)
    spoilt = tmp_path / "t.safetensors.pack"
    extent = damage_plane(tmp_path / "whole.safetensors.pack", spoilt)
    spoilt.read_bytes()
    if decodes == "there":
        monkeypatch.setattr(loaders, "find_decoder", lambda _: PlainDecoder)
    found = {name: torch.zeros_like(tensor) for name, tensor in tensors.items()}

    def load(loader: WeightLoader) -> None:
        loader.load([(spoilt.name, spoilt)], torch.device("cpu"), lambda name, _: found[name])

    with WeightLoader(lambda _: None) as loader:
        if decodes == "there":
            load(loader)
            others = {n: found[n].view(torch.uint8) != tensors[n].view(torch.uint8) for n in kinds}
            assert sum(int(other.sum()) for other in others.values()) == 1  # it decodes, to another value
        with pytest.raises(
            DataLoss, match=rf"t\.safetensors\.pack is damaged: the extent at {extent.offset} .* digest"
        ):
            loader.verify() if decodes == "there" else load(loader)


def test_what_is_whole_passes_behind(packed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loaders, "find_decoder", lambda _: PlainDecoder)
    packed.read_bytes()
    told: list[int] = []
    with WeightLoader(told.append) as loader:
        loader.load([(packed.name, packed)], torch.device("cpu"), lambda _, shape: torch.empty(shape))
        assert len(loader._unverified) > 2
        loader.verify()
        assert loader._unverified == []
    assert sum(told) == packed.stat().st_size
