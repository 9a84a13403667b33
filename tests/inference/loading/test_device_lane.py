"""The lane that decodes on the device, run on the CPU: its tables, its plain decoder, and the kernel interpreted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from wan22.errors import DataLoss
from wan22.pack.layout import Codec
from wan22.pack.planes import frame_lengths
from wan22.pack.reader import PackedFile
from wan22.pack.writer import pack_file
from wan22_inference.engine.loading.device_lane import BATCH_BYTES, LANE_BYTES, DeviceLane
from wan22_inference.engine.loading.frames import PlainDecoder
from wan22_inference.engine.loading.lane_memory import make_lane_memory
from wan22_inference.engine.loading.plan import MAX_DECODED_BYTES, Place, Plan
from wan22_inference.engine.loading.planes import Merge, Part, merge_by_kernel, merge_plainly
from wan22_inference.engine.loading.sources import open_source
from wan22_inference.engine.loading.streams import Stream

CPU = torch.device("cpu")
TENSORS = {
    "scalar": torch.tensor(1.5),
    "empty": torch.zeros(0, 3),
    "half": torch.randn(3, 2).to(torch.bfloat16),
    "eight": torch.randn(300_001).to(torch.float8_e4m3fn),
    "ids": torch.arange(4),
    "large": torch.randn(5_000, 1_000).to(torch.bfloat16),
    "small": torch.randn(150_001).to(torch.bfloat16),
    "full": torch.randn(400_003),
}


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    save_file(TENSORS, tmp_path / "t.safetensors")
    pack_file(tmp_path / "t.safetensors", tmp_path / "t.safetensors.pack", lambda _: None)
    return tmp_path / "t.safetensors.pack"


@contextmanager
def planned(path: Path, place: Place) -> Iterator[Plan]:
    source = open_source(path, path.name)
    with source.reader:
        yield Plan([source], place, BATCH_BYTES)


def lane(merge: Merge) -> DeviceLane:
    memory = make_lane_memory(LANE_BYTES, pinned=False)
    return DeviceLane(memory, Stream(CPU), CPU, PlainDecoder(), merge)


def load(path: Path, place: Place, merge: Merge = merge_plainly) -> None:
    with planned(path, place) as plan:
        one = lane(merge)
        for batch in plan.batches():
            one.load(batch)
        one.finish()
        for slot in plan.slots:
            slot.finish()


@pytest.mark.parametrize("merge", [merge_plainly, merge_by_kernel])
@pytest.mark.parametrize("dtype", [None, torch.float64])
def test_all_comes_out_as_it_was_packed(packed: Path, merge: Merge, dtype: torch.dtype | None) -> None:
    with PackedFile(packed) as pack:
        words = {extent.word for extent in pack.layout.extents if extent.codec is Codec.PLANES_ZSTD}
    assert words == {1, 2, 4}
    found = {name: torch.empty(tensor.shape, dtype=dtype or tensor.dtype) for name, tensor in TENSORS.items()}
    load(packed, lambda name, _: found[name], merge)
    for name, tensor in TENSORS.items():
        wanted = tensor.to(found[name].dtype)
        assert torch.equal(found[name].flatten().view(torch.uint8), wanted.flatten().view(torch.uint8)), name


@settings(max_examples=15)
@given(
    word=st.sampled_from([1, 2, 4]),
    counts=st.lists(st.integers(1, 9_000), min_size=1, max_size=3),
    shifts=st.tuples(st.integers(0, 40), st.integers(0, 40), st.integers(0, 40)),
    seed=st.integers(0, 2**31),
)
def test_the_kernel_merges_what_the_plain_path_merges(
    word: int, counts: list[int], shifts: tuple[int, int, int], seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    stored = torch.randint(0, 256, (40_000 + shifts[0],), dtype=torch.uint8, generator=generator)
    top = torch.randint(0, 256, (30_000 + shifts[1],), dtype=torch.uint8, generator=generator)

    def merged(merge: Merge) -> list[torch.Tensor]:
        targets = [torch.zeros(word * count + shifts[2] + 5, dtype=torch.uint8) for count in counts]
        parts = [
            Part(shifts[0], 9_000, shifts[1], count, target, shifts[2])
            for count, target in zip(counts, targets, strict=True)
        ]
        merge(stored, top, parts, word, torch.from_numpy)
        return targets

    for kernels, plain in zip(merged(merge_by_kernel), merged(merge_plainly), strict=True):
        assert torch.equal(kernels, plain)


def damage(path: Path, *, in_frame: bool) -> str:
    """Spoils the first frame of the last compressed extent, or the length of it; returns how the extent is called."""
    content = bytearray(path.read_bytes())
    with PackedFile(path) as pack:
        extent = [extent for extent in pack.layout.extents if extent.codec is Codec.PLANES_ZSTD][-1]
    stored = memoryview(content)[extent.offset : extent.offset + extent.size]
    begin, lengths = frame_lengths(stored, extent.length, extent.word)
    content[extent.offset + begin - (0 if in_frame else 4 * len(lengths))] ^= 0x40
    path.write_bytes(content)
    return f"the extent at {extent.offset}"


def test_a_frame_that_does_not_decode_is_data_loss_that_names_its_extent(packed: Path) -> None:
    name = damage(packed, in_frame=True)
    with pytest.raises(DataLoss, match=rf"t\.safetensors\.pack is damaged: {name} .* frames that do not decode"):
        load(packed, lambda name, _: torch.empty_like(TENSORS[name]))


def test_frame_lengths_that_do_not_fit_are_seen_before_anything_is_decoded(packed: Path) -> None:
    damage(packed, in_frame=False)
    with pytest.raises(DataLoss, match="its frames are said to end at"):
        load(packed, lambda name, _: torch.empty_like(TENSORS[name]))


def test_a_batch_decodes_to_little_however_small_it_is_stored(tmp_path: Path) -> None:
    zeros = {"zeros": torch.zeros(200 << 20, dtype=torch.uint8).view(torch.float8_e4m3fn)}
    save_file(zeros, tmp_path / "t.safetensors")
    pack_file(tmp_path / "t.safetensors", tmp_path / "t.safetensors.pack", lambda _: None)
    found = torch.empty_like(zeros["zeros"])
    with planned(tmp_path / "t.safetensors.pack", lambda _, __: found) as plan:
        batches = list(plan.batches())
    decoded = [sum(piece.extent.length for piece in batch.pieces) for batch in batches]
    assert sum(decoded) >= found.nbytes
    assert max(decoded) == MAX_DECODED_BYTES
