"""`wan22 models convert-pth`, with pickles of every kind."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from wan22.pickle_conversion import NoCheckpoint, convert
from wan22_testing.wan22_command import Wan22Command


@pytest.fixture
def wan22(tmp_path: Path) -> Wan22Command:
    return Wan22Command(tmp_path)


class Attack:
    """Makes a file where it is unpickled by a reader that does not look."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.mkdir, (str(self._path),)


async def test_tensors_come_through_whatever_their_dtype_strides_and_ties(wan22: Wan22Command) -> None:
    shared = torch.arange(12.0).reshape(3, 4)
    tensors = {
        "plain": torch.randn(5, 7),
        "half": torch.randn(9).to(torch.bfloat16),
        "transposed": torch.arange(6.0).reshape(2, 3).T,
        "tied": shared,
        "tied.too": shared,
        "row": shared[1],
        "scalar": torch.tensor(3.5),
        "empty": torch.zeros(0, 4),
        "parameter": torch.nn.Parameter(torch.ones(2)),
        "ids": torch.arange(5),
        "flags": torch.tensor([True, False]),
    }
    torch.save({"state_dict": tensors}, wan22.folder / "w.pth")
    result = await wan22("models", "convert-pth", "w.pth", "w.safetensors")
    assert (result.exit_code, result.out) == (0, "w.safetensors is written.\n")
    found = load_file(wan22.folder / "w.safetensors")
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found[name].dtype is tensor.dtype
        assert torch.equal(found[name], tensor)

    again = await wan22("models", "convert-pth", "w.pth", "w.safetensors")
    assert (again.exit_code, "is there already" in again.err) == (2, True)


async def test_the_format_before_zip_archives_is_read_too(wan22: Wan22Command) -> None:
    torch.save({"w": torch.arange(3.0)}, wan22.folder / "old.pth", _use_new_zipfile_serialization=False)
    result = await wan22("models", "convert-pth", "old.pth", "w.safetensors", "--json")
    assert result.json() == {"converted": "w.safetensors"}
    assert load_file(wan22.folder / "w.safetensors")["w"].tolist() == [0, 1, 2]


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "old format"])
async def test_the_program_in_a_pickle_is_not_run(wan22: Wan22Command, zipped: bool) -> None:
    attack = {"w": torch.ones(2), "x": Attack(wan22.folder / "was-run")}
    torch.save(attack, wan22.folder / "w.pth", _use_new_zipfile_serialization=zipped)
    result = await wan22("models", "convert-pth", "w.pth", "w.safetensors")
    assert result.exit_code == 2
    assert "w.pth holds more than tensors, and is not run: " in result.err
    assert "mkdir" in result.err
    assert [path.name for path in wan22.folder.glob("w*")] == ["w.pth"]  # neither run nor half written


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ({"w": torch.ones(2), "epoch": 7}, "holds a int under 'epoch', where only tensors are wanted"),
        ([torch.ones(2)], "holds a list, where names with their tensors are wanted"),
        ({}, "holds a dict, where names"),
        ({1: torch.ones(2)}, "holds a Tensor under 1, where"),
        ({"w": torch.ones(2, dtype=torch.complex64)}, "holds 'w' as torch.strided of torch.complex64"),
        pytest.param(
            {"w": torch.eye(2).to_sparse()},
            "holds 'w' as torch.sparse_coo",
            marks=pytest.mark.filterwarnings("ignore::UserWarning:torch"),  # of checks that torch does not make
        ),
    ],
)
def test_other_payloads_are_refused_by_name(tmp_path: Path, content: object, why: str) -> None:
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(NoCheckpoint, match=why):
        convert(tmp_path / "w.pth", tmp_path / "w.safetensors", lambda *_: None)
    assert [path.name for path in tmp_path.iterdir()] == ["w.pth"]


@pytest.mark.parametrize(
    ("content", "why"),
    [(b"", "is no checkpoint that torch wrote"), (b"PK\x03\x04 broken", "is no checkpoint"), (b"\x80\x04.", "")],
)
async def test_damaged_files_are_refused_by_name(wan22: Wan22Command, content: bytes, why: str) -> None:
    (wan22.folder / "w.pth").write_bytes(content)
    result = await wan22("models", "convert-pth", "w.pth", "w.safetensors")
    assert (result.exit_code, f"w.pth {why}" in result.err, "Traceback" in result.err) == (2, True, False)
