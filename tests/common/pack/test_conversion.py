from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from wan22.pack.conversion import Form, keep, to_bfloat16
from wan22.pack.hashing import digest_of
from wan22.pack.malformed import MalformedFile
from wan22.pack.reader import unpack_file
from wan22.pack.safetensors_header import StoredTensor, parse_header
from wan22.pack.writer import pack_file
from wan22_inference.engine.rows8 import quantise_rows


def chosen(tensor: StoredTensor) -> Form:
    return Form.BFLOAT16 if tensor.dtype == "F32" and tensor.name.startswith("cast") else Form.AS_IS


def test_values_are_rounded_as_torch_rounds_them() -> None:
    generator = np.random.default_rng(5)
    odd = np.array([0, -0.0, 1, np.inf, -np.inf, np.nan, -np.nan, 3.4e38, -3.4e38, 1e-45, 1.00390625], "<f4")
    ties = ((np.arange(65_536, dtype="<u4") << 16) | 0x8000).view("<f4")
    values = np.concatenate([odd, ties, generator.integers(0, 1 << 32, 1_000_000, dtype="<u4").view("<f4")])
    words = np.empty(len(values), "<u2")
    to_bfloat16(memoryview(values.tobytes()), words)
    ours = torch.from_numpy(words.view("<i2")).view(torch.bfloat16)
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
    layout = pack_file(source, tmp_path / "pack", heard.append, chosen)
    unpack_file(tmp_path / "pack", tmp_path / "back.safetensors", lambda _: None)
    before, after = load_file(source), load_file(tmp_path / "back.safetensors")
    assert after.keys() == before.keys()
    for name, tensor in before.items():
        expected = tensor.to(torch.bfloat16) if tensor.dtype is torch.float32 and name != "kept" else tensor
        assert after[name].dtype is expected.dtype
        assert torch.equal(after[name], expected)
    assert heard == sorted(heard)
    assert heard[-1] == source.stat().st_size
    back = (tmp_path / "back.safetensors").read_bytes()
    assert layout.source_digest == digest_of(back)
    end = 8 + int.from_bytes(back[:8], "little")
    assert json.loads(back[8:end])["__metadata__"] == {"format": "pt", "note": "ä"}
    assert end % 8 == 0


def test_where_nothing_is_chosen_every_byte_stays(tmp_path: Path, source: Path) -> None:
    layout = pack_file(source, tmp_path / "pack", lambda _: None, keep)
    unpack_file(tmp_path / "pack", tmp_path / "back", lambda _: None)
    assert (tmp_path / "back").read_bytes() == source.read_bytes()
    assert layout.source_digest == digest_of(source.read_bytes())


def test_matrices_become_float8_with_a_scale_a_row_after_all_others(tmp_path: Path) -> None:
    tensors = {
        "a.weight": torch.randn(3_500, 5_000),  # three extents, cut in the middle of rows
        "a.bias": torch.randn(900).to(torch.bfloat16),
        "b.weight": torch.randn(16, 48).to(torch.bfloat16),
        "kept": torch.randn(3, 4),
    }
    source = tmp_path / "w.safetensors"
    save_file(tensors, source, metadata={"format": "pt"})

    def choose(tensor: StoredTensor) -> Form:
        return Form.FLOAT8 if tensor.name.endswith(".weight") else Form.AS_IS

    pack_file(source, tmp_path / "pack", lambda _: None, choose)
    unpack_file(tmp_path / "pack", tmp_path / "back.safetensors", lambda _: None)
    found = load_file(tmp_path / "back.safetensors")
    assert found.keys() == {*tensors, "a.weight_scale", "b.weight_scale"}
    for name in ("a", "b"):
        expected = quantise_rows(tensors[f"{name}.weight"])
        assert torch.equal(found[f"{name}.weight"].view(torch.uint8), expected.data.view(torch.uint8))
        assert torch.equal(found[f"{name}.weight_scale"], expected.scale)
    for name in ("a.bias", "kept"):
        assert torch.equal(found[name], tensors[name])
    raw = (tmp_path / "back.safetensors").read_bytes()
    order = parse_header(raw[: 8 + int.from_bytes(raw[:8], "little")], len(raw)).tensors
    assert {tensor.name for tensor in order[-2:]} == {"a.weight_scale", "b.weight_scale"}


@pytest.mark.parametrize(
    ("tensors", "why"),
    [
        (
            {"large": torch.ones(9 << 20), "w": torch.tensor([[1.0, float("nan")]])},
            "tensor 'w' cannot be quantised: it has values that are not finite",
        ),
        ({"w": torch.ones(3)}, r"tensor 'w' is F32 \[3\], where a matrix is quantised"),
        ({"w": torch.ones(2, 3, dtype=torch.int64)}, r"tensor 'w' is I64 \[2, 3\], where"),
        ({"w": torch.ones(0, 3)}, r"tensor 'w' is F32 \[0, 3\], where"),
        ({"w": torch.ones(1, 20_000_000)}, "has rows of 80000000 bytes"),
        ({"w": torch.ones(2, 2), "w_scale": torch.ones(2)}, "has a scale already"),
    ],
)
def test_what_cannot_be_quantised_is_refused_by_name(
    tmp_path: Path, tensors: dict[str, torch.Tensor], why: str
) -> None:
    save_file(tensors, tmp_path / "w.safetensors")

    def choose(tensor: StoredTensor) -> Form:
        return Form.FLOAT8 if tensor.name == "w" else Form.AS_IS

    with pytest.raises(MalformedFile, match=why):
        pack_file(tmp_path / "w.safetensors", tmp_path / "pack", lambda _: None, choose)
