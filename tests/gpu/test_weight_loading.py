"""Weights onto a CUDA device, decoded there and on the host: the same bits as they were packed of."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from wan22.errors import DataLoss
from wan22.pack.writer import pack_file
from wan22_bench.registry import stages
from wan22_bench.registry.model_weights import make_weights, remember, write_weights
from wan22_inference.engine.loading import loader as loaders
from wan22_inference.engine.loading.loader import WeightLoader
from wan22_inference.engine.loading.nvcomp import find_decoder, find_nvcomp
from wan22_inference.engine.loading.planes import Part, merge_by_kernel, merge_plainly
from wan22_inference.engine.loading.spent import ON_DEVICE
from wan22_testing.damaged_pack import damage_plane

pytestmark = pytest.mark.gpu


def make_tensors() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(3)

    def noise(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator) * 0.02

    return {
        "scalar": torch.tensor(1.5),
        "empty": torch.zeros(0, 3),
        "eight": noise(4_000, 5_001).to(torch.float8_e4m3fn),
        "ids": torch.arange(4),
        "full": noise(2_000, 2_003),
        "odd": noise(150_001).to(torch.bfloat16),
        **{f"block{n}": noise(5_120, 5_120).to(torch.bfloat16) for n in range(6)},
    }


@pytest.fixture(scope="module")
def tensors() -> dict[str, Tensor]:
    return make_tensors()


@pytest.fixture(scope="module")
def packed(tensors: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packed")
    save_file(tensors, folder / "t.safetensors")
    pack_file(folder / "t.safetensors", folder / "t.safetensors.pack", lambda _: None)
    with (folder / "t.safetensors.pack").open("rb") as file:
        os.fsync(file.fileno())
    return folder / "t.safetensors.pack"


def load(
    path: Path, tensors: dict[str, Tensor], device: torch.device, dtype: torch.dtype | None = None
) -> dict[str, Tensor]:
    found = {name: torch.empty(t.shape, dtype=dtype or t.dtype, device=device) for name, t in tensors.items()}
    with WeightLoader(lambda _: None) as loader:
        loader.load([(path.name, path)], device, lambda name, _: found[name])
        loader.verify()
    return found


def assert_equal(found: dict[str, Tensor], tensors: dict[str, Tensor]) -> None:
    for name, tensor in tensors.items():
        ours, theirs = found[name].cpu(), tensor.to(found[name].dtype)
        assert torch.equal(ours.flatten().view(torch.uint8), theirs.flatten().view(torch.uint8)), name


def without_nvcomp(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loaders, "find_decoder", lambda _: None)


@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize("decoder", ["nvcomp", "host"])
@pytest.mark.parametrize("kind", ["packed", "plain"])
@pytest.mark.parametrize("dtype", [None, torch.float32])
def test_every_bit_comes_to_the_device(
    packed: Path,
    tensors: dict[str, Tensor],
    cuda: torch.device,
    monkeypatch: pytest.MonkeyPatch,
    *,
    cached: bool,
    decoder: str,
    kind: str,
    dtype: torch.dtype | None,
) -> None:
    if decoder == "host":
        without_nvcomp(monkeypatch)
    elif find_nvcomp() is None:
        pytest.skip("nvCOMP is not installed")
    path = packed if kind == "packed" else packed.with_name("t.safetensors")
    with path.open("rb") as file:
        file.read() if cached else os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    assert_equal(load(path, tensors, cuda, dtype), tensors)


def test_a_damaged_extent_is_found_behind_at_the_latest(
    packed: Path, tensors: dict[str, Tensor], cuda: torch.device, tmp_path: Path
) -> None:
    if find_nvcomp() is None:
        pytest.skip("nvCOMP is not installed")
    spoilt = tmp_path / packed.name
    extent = damage_plane(packed, spoilt)
    spoilt.read_bytes()
    found = {name: torch.empty_like(tensor, device=cuda) for name, tensor in tensors.items()}
    with WeightLoader(lambda _: None) as loader:
        loader.load([(spoilt.name, spoilt)], cuda, lambda name, _: found[name])
        assert loader.loaded.direct_bytes == 0
        assert count_other_bytes(found, tensors) == 1  # it decodes, to another value
        with pytest.raises(DataLoss, match=rf"pack is damaged: the extent at {extent.offset} .* has digest"):
            loader.verify()


def count_other_bytes(found: dict[str, Tensor], tensors: dict[str, Tensor]) -> int:
    return sum(
        int((found[name].cpu().flatten().view(torch.uint8) != tensor.flatten().view(torch.uint8)).sum())
        for name, tensor in tensors.items()
    )


def test_a_load_tells_what_the_device_took(packed: Path, tensors: dict[str, Tensor], cuda: torch.device) -> None:
    if find_nvcomp() is None:
        pytest.skip("nvCOMP is not installed")
    packed.read_bytes()
    found = {name: torch.empty_like(tensor, device=cuda) for name, tensor in tensors.items()}
    with WeightLoader(lambda _: None) as loader:
        loader.load([(packed.name, packed)], cuda, lambda name, _: found[name])
    of_device = {step: loader.loaded.spent[step] for step in ON_DEVICE}
    assert min(of_device.values()) > 0
    assert sum(of_device.values()) < stages.lanes_count() * loader.loaded.seconds


def test_each_stage_of_a_load_is_measured_alone(cuda: torch.device, tmp_path: Path) -> None:
    if (make_decoder := find_decoder(cuda)) is None:
        pytest.skip("nvCOMP is not installed")
    write_weights(make_weights(100_000_000, cuda), tmp_path / "w.safetensors")
    pack_file(tmp_path / "w.safetensors", tmp_path / "w.safetensors.pack", lambda _: None)
    remember(tmp_path / "w.safetensors.pack")
    rows = list(stages.alone(tmp_path / "w.safetensors.pack", cuda, make_decoder, merge_by_kernel))
    assert len(rows) == 8
    assert all(row.value is not None and row.value > 0 for row in rows)


@pytest.mark.parametrize("word", [1, 2, 4])
def test_the_kernel_merges_what_the_plain_path_merges(word: int, cuda: torch.device) -> None:
    generator = torch.Generator(cuda).manual_seed(word)
    count = 3_000_017
    stored = torch.randint(0, 256, (4 * count + 3,), dtype=torch.uint8, device=cuda, generator=generator)
    top = torch.randint(0, 256, (count + 7,), dtype=torch.uint8, device=cuda, generator=generator)
    ours, theirs = (torch.zeros(word * count + 4 * word, dtype=torch.uint8, device=cuda) for _ in range(2))
    for merge, target in ((merge_by_kernel, ours), (merge_plainly, theirs)):
        parts = [Part(3, count, 7, count - 9, target, 2 * word), Part(1, count, 0, 1, target, 0)]
        merge(stored, top, parts, word, lambda rows: torch.from_numpy(rows).to(cuda))
    assert torch.equal(ours, theirs)
    assert int(ours.count_nonzero()) > count // 2
