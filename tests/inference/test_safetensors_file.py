from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from wan22.errors import DataLoss
from wan22_inference.engine.safetensors_file import read_tensors


def write(path: Path, header: Any, data: bytes = b"") -> Path:
    encoded = json.dumps(header).encode()
    path.write_bytes(len(encoded).to_bytes(8, "little") + encoded + data)
    return path


def test_every_dtype_and_shape_comes_back(tmp_path: Path) -> None:
    tensors = {
        "scalar": torch.tensor(1.5),
        "empty": torch.zeros(0, 3),
        "half": torch.randn(3, 2).to(torch.bfloat16),
        "eight": torch.randn(5).to(torch.float8_e4m3fn),
        "ids": torch.arange(4),
    }
    save_file(tensors, tmp_path / "t.safetensors", metadata={"format": "pt"})
    read = dict(read_tensors(tmp_path / "t.safetensors", "t"))
    assert read.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert (read[name].dtype, read[name].shape) == (tensor.dtype, tensor.shape)
        assert torch.equal(read[name].float(), tensor.float())


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"dtype": "C64", "shape": [1], "data_offsets": [0, 8]}, "a has the unknown dtype 'C64'"),
        ({"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}, "a has 8 bytes, which is not what its shape needs"),
        ({"dtype": "F32", "shape": [2], "data_offsets": [8, 0]}, "its header is not a safetensors header"),
        ({"dtype": "F32", "shape": [-2], "data_offsets": [0, 8]}, "its header is not a safetensors header"),
        ({"dtype": "F32"}, "its header is not a safetensors header"),
        (7, "its header is not a safetensors header"),
    ],
)
def test_a_bad_entry_is_data_loss(tmp_path: Path, entry: Any, said: str) -> None:
    path = write(tmp_path / "t", {"a": entry}, bytes(8))
    with pytest.raises(DataLoss, match="vae/x is damaged") as caught:
        list(read_tensors(path, "vae/x"))
    assert said in caught.value.message


def test_a_header_of_absurd_length_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "t").write_bytes((2**62).to_bytes(8, "little"))
    with pytest.raises(DataLoss, match="claims 4611686018427387904 bytes"):
        list(read_tensors(tmp_path / "t", "t"))
