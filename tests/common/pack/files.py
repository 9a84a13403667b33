"""Small safetensors files, and packs that say something else than they should."""

from __future__ import annotations

import json
import random
import struct
from pathlib import Path

import numpy as np

from wan22.pack.hashing import digest_of
from wan22.pack.writer import pack_file

SIZES = {"BF16": 2, "F16": 2, "F32": 4, "F8_E4M3": 1, "I64": 8, "U8": 1}


def safetensors(tensors: dict[str, tuple[str, bytes]], *, padding: int = 0) -> bytes:
    """A file with one-dimensional tensors: name -> dtype and bytes."""
    header, data = {}, b""
    for name, (dtype, content) in tensors.items():
        offsets = [len(data), len(data) + len(content)]
        header[name] = {"dtype": dtype, "shape": [len(content) // SIZES[dtype]], "data_offsets": offsets}
        data += content
    raw = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode() + b" " * padding
    return struct.pack("<Q", len(raw)) + raw + data


def bf16(count: int, seed: int = 0, sigma: float = 0.02) -> bytes:
    """Normal values, as weights have them."""
    values = np.random.default_rng(seed).normal(0, sigma, count).astype("<f4")
    return (values.view("<u4") >> 16).astype("<u2").tobytes()


def float32(count: int, seed: int = 0) -> bytes:
    return np.random.default_rng(seed).normal(0, 0.02, count).astype("<f4").tobytes()


def mixed() -> bytes:
    """Every codec and word, extents that hold several tensors, tensors over several extents, an empty one."""
    noise = random.Random(1)
    return safetensors(
        {
            "a": ("BF16", bf16(5_000_001)),
            "b": ("BF16", bf16(10, 1)),
            "empty": ("BF16", b""),
            "c": ("F32", float32(70_000)),
            "steps": ("I64", struct.pack("<3q", 1, 2, 3)),
            "eight": ("F8_E4M3", bytes(noise.choices(range(96, 120), k=200_000))),
            "random": ("BF16", noise.randbytes(100_000)),
            "half": ("F16", np.random.default_rng(2).normal(0, 1, 9_999).astype("<f2").tobytes()),
        },
        padding=3,
    )


def packed(tmp_path: Path, content: bytes) -> Path:
    source, target = tmp_path / "w.safetensors", tmp_path / "w.safetensors.pack"
    source.write_bytes(content)
    pack_file(source, target, lambda _: None)
    return target


def sealed(content: bytes, position: int, value: bytes, count: int) -> bytes:
    """A pack with other bytes in its header or table, whose seal is right for them."""
    end = 64 + 72 * count
    body = content[:position] + value + content[position + len(value) : end]
    return body + digest_of(body) + content[end + 32 :]
