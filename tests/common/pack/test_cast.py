from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from wan22.pack.cast import to_bfloat16
from wan22.pack.reader import unpack_file
from wan22.pack.safetensors_header import StoredTensor
from wan22.pack.writer import pack_file


def chosen(tensor: StoredTensor) -> bool:
    return tensor.name.startswith("cast")


def test_values_are_rounded_as_torch_rounds_them() -> None:
    generator = np.random.default_rng(5)
    odd = np.array([0, -0.0, 1, np.inf, -np.inf, np.nan, -np.nan, 3.4e38, -3.4e38, 1e-45, 1.00390625], "<f4")
    ties = ((np.arange(65_536, dtype="<u4") << 16) | 0x8000).view("<f4")
    values = np.concatenate([odd, ties, generator.integers(0, 1 << 32, 1_000_000, dtype="<u4").view("<f4")])
    ours = torch.frombuffer(bytearray(to_bfloat16(values.tobytes())), dtype=torch.bfloat16)
    theirs = torch.from_numpy(values).to(torch.bfloat16)
    same = ours.view(torch.int16) == theirs.view(torch.int16)
    assert bool((same | (ours.isnan() & theirs.isnan())).all())


@pytest.fixture
def source(tmp_path: Path) -> Path:
    tensors = {
        "cast.large": torch.randn(3_000, 1_000),
        "cast.odd": torch.randn(3),
        "cast.already": torch.randn(7).to(torch.bfloat16),
        "cast.ids": torch.arange(5),
        "kept": torch.randn(999),
        "cast.empty": torch.zeros(0, 4),
    }
    save_file(tensors, tmp_path / "w.safetensors", metadata={"format": "pt", "note": "ä"})
    return tmp_path / "w.safetensors"


def test_chosen_float32_tensors_are_packed_as_bfloat16_and_all_else_stays(tmp_path: Path, source: Path) -> None:
    heard: list[int] = []
    packed = pack_file(source, tmp_path / "pack", heard.append, chosen)
    unpack_file(tmp_path / "pack", tmp_path / "back.safetensors", lambda _: None)
    before, after = load_file(source), load_file(tmp_path / "back.safetensors")
    assert after.keys() == before.keys()
    for name, tensor in before.items():
        expected = tensor.to(torch.bfloat16) if tensor.dtype is torch.float32 and name != "kept" else tensor
        assert after[name].dtype is expected.dtype
        assert torch.equal(after[name], expected)
    assert heard == sorted(heard)
    assert heard[-1] == source.stat().st_size
    assert packed.read_digest == hashlib.sha256(source.read_bytes()).hexdigest()
    back = (tmp_path / "back.safetensors").read_bytes()
    assert packed.layout.source_digest == hashlib.sha256(back).digest()
    end = 8 + int.from_bytes(back[:8], "little")
    assert json.loads(back[8:end])["__metadata__"] == {"format": "pt", "note": "ä"}
    assert end % 8 == 0


def test_where_nothing_is_chosen_every_byte_stays(tmp_path: Path, source: Path) -> None:
    packed = pack_file(source, tmp_path / "pack", lambda _: None, lambda _: False)
    unpack_file(tmp_path / "pack", tmp_path / "back", lambda _: None)
    assert (tmp_path / "back").read_bytes() == source.read_bytes()
    assert packed.read_digest == packed.layout.source_digest.hex()
