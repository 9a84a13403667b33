from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from wan22.errors import Cancelled, DataLoss, Reason
from wan22.pack.layout import EXTENT_BYTES
from wan22.pack.reader import PackedFile
from wan22.pack.writer import pack_file
from wan22_inference.engine.loading.loader import WeightLoader


def write(path: Path, header: Any, data: bytes = b"") -> Path:
    encoded = json.dumps(header).encode()
    path.write_bytes(len(encoded).to_bytes(8, "little") + encoded + data)
    return path


CPU = torch.device("cpu")


def read(path: Path, name: str, heard: list[int] | None = None) -> dict[str, torch.Tensor]:
    """Loads a file into tensors of the dtypes and shapes of TENSORS, or bytes for others' names."""
    found: dict[str, torch.Tensor] = {}

    def place(tensor: str, shape: tuple[int, ...]) -> torch.Tensor:
        dtype = TENSORS[tensor].dtype if tensor in TENSORS else torch.uint8
        found[tensor] = torch.empty(shape, dtype=dtype)
        return found[tensor]

    with WeightLoader((list[int]() if heard is None else heard).append) as loader:
        loader.load([(name, path)], CPU, place)
    return found


TENSORS = {
    "scalar": torch.tensor(1.5),
    "empty": torch.zeros(0, 3),
    "half": torch.randn(3, 2).to(torch.bfloat16),
    "eight": torch.randn(5).to(torch.float8_e4m3fn),
    "ids": torch.arange(4),
    "large": torch.randn(5_000, 1_000).to(torch.bfloat16),
    "full": torch.randn(100_000),
}


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    save_file(TENSORS, tmp_path / "t.safetensors", metadata={"format": "pt"})
    return tmp_path / "t.safetensors"


@pytest.fixture
def packed(plain: Path) -> Path:
    target = plain.with_name("t.safetensors.pack")
    pack_file(plain, target, lambda _: None)
    return target


@pytest.mark.parametrize("kind", ["plain", "packed"])
def test_every_dtype_and_shape_comes_back_and_every_byte_is_told(kind: str, request: pytest.FixtureRequest) -> None:
    path, heard = request.getfixturevalue(kind), list[int]()
    found = read(path, path.name, heard)
    assert found.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert (found[name].dtype, found[name].shape) == (tensor.dtype, tensor.shape)
        assert torch.equal(found[name].flatten().view(torch.uint8), tensor.flatten().view(torch.uint8))
    assert sum(heard) == path.stat().st_size
    assert min(heard) >= 0


def test_a_file_without_tensors_is_read(tmp_path: Path) -> None:
    heard: list[int] = []
    assert read(write(tmp_path / "t", {}), "t.safetensors", heard) == {}
    assert heard == [10]


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"dtype": "C64", "shape": [1], "data_offsets": [0, 8]}, "entry of tensor 'a' is wrong"),
        ({"dtype": "U16", "shape": [4], "data_offsets": [0, 8]}, "a has the dtype U16, which no model here has"),
        ({"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}, "'a' has 8 bytes, but F32 [3] needs 12"),
        ({"dtype": "F32", "shape": [2], "data_offsets": [8, 0]}, "has shape [2] and offsets 8 to 0"),
        ({"dtype": "F32", "shape": [-2], "data_offsets": [0, 8]}, "has shape [-2]"),
        ({"dtype": "F32"}, "entry of tensor 'a' is wrong"),
        (7, "entry of tensor 'a' is wrong"),
    ],
)
def test_a_bad_entry_is_data_loss(tmp_path: Path, entry: Any, said: str) -> None:
    path = write(tmp_path / "t", {"a": entry}, bytes(8))
    with pytest.raises(DataLoss, match="vae/x is damaged") as caught:
        read(path, "vae/x")
    assert said in caught.value.message


def test_a_header_of_absurd_length_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "t").write_bytes((2**62).to_bytes(8, "little"))
    with pytest.raises(DataLoss, match="said to have 4611686018427387904 bytes"):
        read(tmp_path / "t", "t")


def test_a_damaged_extent_is_data_loss_that_names_file_and_extent(packed: Path) -> None:
    content = bytearray(packed.read_bytes())
    with PackedFile(packed) as pack:
        content[pack.layout.extents[-1].offset] ^= 1
    packed.write_bytes(content)
    with pytest.raises(
        DataLoss, match=r"vae/t\.safetensors\.pack is damaged: the extent at \d+ .* has digest"
    ) as caught:
        read(packed, "vae/t.safetensors.pack")
    assert caught.value.reason is Reason.DIGEST_MISMATCH


@pytest.mark.parametrize("kind", ["plain", "packed"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_tensors_are_cast_to_the_dtype_of_their_place(
    kind: str, dtype: torch.dtype, request: pytest.FixtureRequest
) -> None:
    path: Path = request.getfixturevalue(kind)
    found: dict[str, torch.Tensor] = {}

    def place(name: str, shape: tuple[int, ...]) -> torch.Tensor:
        return found.setdefault(name, torch.full(shape, torch.nan, dtype=dtype))

    with WeightLoader(lambda _: None) as loader:
        loader.load([(path.name, path)], CPU, place)
    for name, tensor in TENSORS.items():
        assert torch.equal(found[name], tensor.to(dtype))


def test_a_tensor_that_is_cut_within_an_item_is_cast_whole(tmp_path: Path) -> None:
    large = torch.randn(EXTENT_BYTES // 2)
    header = {
        "odd": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]},
        "large": {"dtype": "F32", "shape": [len(large)], "data_offsets": [1, 1 + 4 * len(large)]},
    }
    path = write(tmp_path / "t", header, b"\7" + large.numpy().tobytes())
    found = {"odd": torch.empty(1, dtype=torch.uint8), "large": torch.empty(len(large), dtype=torch.float64)}
    with WeightLoader(lambda _: None) as loader:
        loader.load([("t.safetensors", path)], CPU, lambda name, _: found[name])
    assert int(found["odd"]) == 7
    assert torch.equal(found["large"], large.double())


def test_what_is_not_cached_is_read_from_the_disk_itself_and_counted(packed: Path) -> None:
    with packed.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    places = {name: torch.empty_like(tensor) for name, tensor in TENSORS.items()}
    with WeightLoader(lambda _: None) as loader:
        loader.load([(packed.name, packed)], CPU, lambda name, _: places[name])
    loaded = loader.loaded
    assert loaded.stored_bytes == packed.stat().st_size
    assert loaded.bytes == sum(tensor.nbytes for tensor in TENSORS.values())
    assert 0 <= loaded.direct_bytes <= loaded.stored_bytes
    assert torch.equal(places["large"], TENSORS["large"])


def test_an_error_in_one_lane_ends_the_load_and_shows(packed: Path) -> None:
    def stop(_: int) -> None:
        raise Cancelled("enough")

    with pytest.raises(Cancelled, match="enough"), WeightLoader(stop) as loader:
        loader.load([(packed.name, packed)], CPU, lambda name, _: torch.empty_like(TENSORS[name]))
