"""Weights onto a CUDA device, decoded there and on the host: the same bits as they were packed of."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from wan22.errors import DataLoss
from wan22.pack.layout import EXTENT_BYTES
from wan22.pack.writer import pack_file
from wan22_bench.registry import stages
from wan22_bench.registry.model_weights import make_weights, remember, write_weights
from wan22_inference.engine.loading import device_loading, group, group_decoder, plan
from wan22_inference.engine.loading import loader as loaders
from wan22_inference.engine.loading.device_loading import DECODERS
from wan22_inference.engine.loading.loader import WeightLoader
from wan22_inference.engine.loading.nvcomp import find_decoder, find_nvcomp
from wan22_inference.engine.loading.planes import Parts, merge_by_kernel, merge_plainly
from wan22_inference.engine.loading.spent import OF_DEVICE_THREAD, ON_DEVICE, Step
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


@pytest.mark.parametrize(("extents", "frames"), [(1, 1152), (2, 80), (100, 100)])
def test_groups_of_any_size_take_turns_in_their_memory(
    packed: Path,
    tensors: dict[str, Tensor],
    cuda: torch.device,
    monkeypatch: pytest.MonkeyPatch,
    extents: int,
    frames: int,
) -> None:
    """Many more groups than memory for them, so that each waits for its turn; twice, by one loader."""
    if find_nvcomp() is None:
        pytest.skip("nvCOMP is not installed")
    monkeypatch.setattr(device_loading, "BATCH_BYTES", EXTENT_BYTES)
    monkeypatch.setattr(group, "GROUP_BYTES", extents * EXTENT_BYTES)
    for module in (group, group_decoder):
        monkeypatch.setattr(module, "GROUP_FRAMES", frames)
    monkeypatch.setattr(plan, "MAX_FRAMES", min(frames, plan.MAX_FRAMES))
    packed.read_bytes()
    with WeightLoader(lambda _: None) as loader:
        for _ in range(2):
            found = {name: torch.zeros_like(tensor, device=cuda) for name, tensor in tensors.items()}
            loader.load([(packed.name, packed)], cuda, lambda name, _, into=found: into[name])  # type: ignore[misc]
            assert_equal(found, tensors)
        free, _ = torch.cuda.mem_get_info(cuda)
        taken = loader.scratch_bytes
        loader.release_lanes()
        assert torch.cuda.mem_get_info(cuda)[0] - free >= taken > 0


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
    spent, seconds = loader.loaded.spent, loader.loaded.seconds
    assert min(spent[step] for step in ON_DEVICE) > 0
    assert spent[Step.COPYING] < seconds
    assert spent[Step.DECODING] + spent[Step.MERGING] < DECODERS * seconds
    assert sum(spent[step] for step in OF_DEVICE_THREAD) < seconds


def test_each_stage_of_a_load_is_measured_alone(cuda: torch.device, tmp_path: Path) -> None:
    if (make_decoder := find_decoder(cuda)) is None:
        pytest.skip("nvCOMP is not installed")
    write_weights(make_weights(100_000_000, cuda), tmp_path / "w.safetensors")
    pack_file(tmp_path / "w.safetensors", tmp_path / "w.safetensors.pack", lambda _: None)
    remember(tmp_path / "w.safetensors.pack")
    rows = list(stages.alone(tmp_path / "w.safetensors.pack", cuda, make_decoder, merge_by_kernel))
    assert len(rows) == 10
    assert all(row.value is not None and row.value > 0 for row in rows)


@pytest.mark.parametrize("word", [1, 2, 4])
def test_the_kernel_merges_what_the_plain_path_merges(word: int, cuda: torch.device) -> None:
    generator = torch.Generator(cuda).manual_seed(word)
    count = 3_000_017
    stored = torch.randint(0, 256, (4 * count + 3,), dtype=torch.uint8, device=cuda, generator=generator)
    top = torch.randint(0, 256, (count + 7,), dtype=torch.uint8, device=cuda, generator=generator)
    ours, theirs = (torch.zeros(word * count + 4 * word, dtype=torch.uint8, device=cuda) for _ in range(2))
    for merge, target in ((merge_by_kernel, ours), (merge_plainly, theirs)):
        address = target.data_ptr()
        rows = np.array([(3, 7, count, count - 9, address + 2 * word), (1, 0, count, 1, address)])
        parts = Parts(word, rows, [target, target])
        merge(stored, top, parts, torch.from_numpy(parts.addresses(stored, top)).to(cuda))
    assert torch.equal(ours, theirs)
    assert int(ours.count_nonzero()) > count // 2
