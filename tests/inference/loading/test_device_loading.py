"""The way by which a GPU loads, run on the CPU: its groups, its plain decoder, and the kernel interpreted."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from wan22.errors import Cancelled, DataLoss
from wan22.pack.layout import EXTENT_BYTES, Codec, Extent
from wan22.pack.planes import FRAME_BYTES, frame_lengths
from wan22.pack.reader import PackedFile
from wan22.pack.writer import pack_file
from wan22_inference.engine.loading import device_loading, group, group_decoder, plan
from wan22_inference.engine.loading import loader as loaders
from wan22_inference.engine.loading.buffers import BufferRing, Filled
from wan22_inference.engine.loading.contents import list_contents
from wan22_inference.engine.loading.device_loading import DeviceLoading
from wan22_inference.engine.loading.file_reader import FileReader
from wan22_inference.engine.loading.frames import Frames, PlainDecoder
from wan22_inference.engine.loading.group import GROUP_BYTES, GROUP_FRAMES
from wan22_inference.engine.loading.group_decoder import GroupDecoder
from wan22_inference.engine.loading.loader import WeightLoader
from wan22_inference.engine.loading.plan import MAX_FRAMES, Place, Plan
from wan22_inference.engine.loading.planes import Merge, merge_by_kernel, merge_plainly
from wan22_inference.engine.loading.reader import read_batches
from wan22_inference.engine.loading.sources import open_source
from wan22_inference.engine.loading.spent import Clock
from wan22_inference.engine.loading.streams import Stream
from wan22_testing.damaged_pack import damage_plane

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
BLOCKS = {f"block{n}": torch.randn(EXTENT_BYTES // 2).to(torch.bfloat16) for n in range(6)}
"""Each fills an extent."""


def pack(tensors: dict[str, Tensor], path: Path) -> Path:
    save_file(tensors, path.with_name("plain"))
    pack_file(path.with_name("plain"), path, lambda _: None)
    return path


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pack(TENSORS, tmp_path_factory.mktemp("packed") / "t.safetensors.pack")


@pytest.fixture(scope="module")
def blocks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pack(BLOCKS, tmp_path_factory.mktemp("blocks") / "b.safetensors.pack")


class RecordingDecoder(PlainDecoder):
    """Tells how many frames each of its calls has, and that there was one."""

    def __init__(self, calls: list[int]) -> None:
        self.calls = calls
        self.called = threading.Semaphore(0)

    def decode(self, stored: Tensor, frames: Frames, target: Tensor, table: Tensor) -> Tensor:
        assert len(target) >= len(frames) * FRAME_BYTES
        right = super().decode(stored, frames, target, table)
        self.calls.append(len(frames))
        self.called.release()
        return right


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Has packs decoded as on a device: frames by call."""
    calls: list[int] = []
    monkeypatch.setattr(loaders, "find_decoder", lambda _: lambda: RecordingDecoder(calls))
    return calls


@pytest.fixture
def one_extent_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes a batch of each extent of a full size."""
    monkeypatch.setattr(device_loading, "BATCH_BYTES", EXTENT_BYTES)


def load(*paths: Path, tensors: dict[str, Tensor], dtype: torch.dtype | None = None) -> dict[str, Tensor]:
    found = {name: torch.empty(tensor.shape, dtype=dtype or tensor.dtype) for name, tensor in tensors.items()}
    with WeightLoader(lambda _: None) as loader:
        loader.load([(path.name, path) for path in paths], CPU, lambda name, _: found[name])
    return found


def assert_equal(found: dict[str, Tensor], tensors: dict[str, Tensor]) -> None:
    for name, tensor in tensors.items():
        wanted = tensor.to(found[name].dtype)
        assert torch.equal(found[name].flatten().view(torch.uint8), wanted.flatten().view(torch.uint8)), name


@pytest.mark.parametrize("merge", [merge_plainly, merge_by_kernel])
@pytest.mark.parametrize("dtype", [None, torch.float64])
@pytest.mark.parametrize("table_numbers", [group.TABLE_NUMBERS, 16])
@pytest.mark.usefixtures("calls")
def test_all_comes_out_as_it_was_packed(
    packed: Path, merge: Merge, dtype: torch.dtype | None, table_numbers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where tables are larger than the memory for them."""
    with PackedFile(packed) as pack:
        words = {extent.word for extent in pack.layout.extents if extent.codec is Codec.PLANES_ZSTD}
    assert words == {1, 2, 4}
    monkeypatch.setattr(loaders, "merge_for", lambda _: merge)
    monkeypatch.setattr(group, "TABLE_NUMBERS", table_numbers)
    assert_equal(load(packed, tensors=TENSORS, dtype=dtype), TENSORS)


@contextmanager
def read(path: Path, place: Place, loading: DeviceLoading) -> Iterator[BufferRing]:
    """A ring with all of a file in it, read by one reader."""
    source = open_source(path, path.name)
    with source.reader:
        ring = loading.ring(1)
        batches = Plan([source], place, device_loading.BATCH_BYTES).batches()
        read_batches(batches, ring, Clock(), lambda *_: None)
        yield ring


@pytest.mark.parametrize(
    ("most_bytes", "most_frames", "wanted"),
    [
        (GROUP_BYTES, GROUP_FRAMES, [192]),
        (EXTENT_BYTES, GROUP_FRAMES, [32] * 6),
        (2 * EXTENT_BYTES, GROUP_FRAMES, [96, 96]),
        (GROUP_BYTES, 100, [96, 96]),
        (GROUP_BYTES, 191, [160, 32]),
    ],
)
@pytest.mark.usefixtures("one_extent_each")
def test_groups_are_what_has_gathered_up_to_what_there_is_room_for(
    blocks: Path, most_bytes: int, most_frames: int, wanted: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (group, group_decoder):
        monkeypatch.setattr(module, "GROUP_FRAMES", most_frames)
    monkeypatch.setattr(group, "GROUP_BYTES", most_bytes)
    calls: list[int] = []
    loading = DeviceLoading(CPU, lambda: RecordingDecoder(calls), merge_plainly)
    found = {name: torch.empty_like(tensor) for name, tensor in BLOCKS.items()}
    for _ in range(2):  # the second time with the same memory
        for tensor in found.values():
            tensor.zero_()
        calls.clear()
        with read(blocks, lambda name, _: found[name], loading) as ring:
            loading.run(ring, Stream(CPU), Clock())
        assert calls == wanted
        assert_equal(found, BLOCKS)


@pytest.mark.usefixtures("one_extent_each")
def test_the_first_batch_waits_for_no_other(blocks: Path) -> None:
    decoder = RecordingDecoder([])
    found = {name: torch.empty_like(tensor) for name, tensor in BLOCKS.items()}
    loading = DeviceLoading(CPU, lambda: decoder, merge_plainly)
    source, ring = open_source(blocks, blocks.name), loading.ring(1)
    with source.reader, ThreadPoolExecutor(1) as pool:
        running = pool.submit(loading.run, ring, Stream(CPU), Clock())
        for batch in Plan([source], lambda name, _: found[name], device_loading.BATCH_BYTES).batches():
            buffer = ring.take(Clock())
            assert buffer is not None
            source.reader.read(batch.offset, buffer.view[: batch.size])
            ring.fill(Filled(buffer, batch, list_contents(batch, buffer.view)))
            assert decoder.called.acquire(timeout=60)
        ring.end()
        running.result(timeout=60)
    assert decoder.calls == [32] * 6
    assert_equal(found, BLOCKS)


@pytest.mark.parametrize("spare", [device_loading.SPARE_BUFFERS, 0])
@pytest.mark.usefixtures("one_extent_each")
def test_while_a_decoder_is_busy_batches_gather_however_few_buffers_there_are(
    blocks: Path, calls: list[int], spare: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device_loading, "SPARE_BUFFERS", spare)
    monkeypatch.setattr(GroupDecoder, "is_free", lambda _: False)
    assert_equal(load(blocks, tensors=BLOCKS), BLOCKS)
    assert calls == [192]


@pytest.mark.usefixtures("one_extent_each", "calls")
def test_several_files_and_loads_share_what_a_loader_has_until_it_is_released(packed: Path, blocks: Path) -> None:
    tensors, heard = TENSORS | BLOCKS, list[int]()
    found = {name: torch.empty_like(tensor) for name, tensor in tensors.items()}
    with WeightLoader(heard.append) as loader:
        assert loader.scratch_bytes == 0
        loader.load([(path.name, path) for path in (packed, blocks)], CPU, lambda name, _: found[name])
        assert_equal(found, tensors)
        taken = loader.scratch_bytes
        assert 0 < taken < 16 * (140 << 20)
        for tensor in found.values():
            tensor.zero_()
        for path in (blocks, packed):
            loader.load([(path.name, path)], CPU, lambda name, _: found[name])
        assert_equal(found, tensors)
        assert loader.scratch_bytes == taken
        loader.release_lanes()
        assert loader.scratch_bytes == 0
        loader.load([(packed.name, packed)], CPU, lambda name, _: found[name])
        loader.verify()
        assert_equal(found, tensors)
    assert sum(heard) == 3 * packed.stat().st_size + 2 * blocks.stat().st_size


def compressed(path: Path) -> list[Extent]:
    with PackedFile(path) as pack:
        return [extent for extent in pack.layout.extents if extent.codec is Codec.PLANES_ZSTD]


def damage(path: Path, target: Path, extent: Extent, *, in_frame: bool) -> str:
    """Spoils the last frame of an extent, or the length of it; returns how the extent is called."""
    content = bytearray(path.read_bytes())
    stored = memoryview(content)[extent.offset : extent.offset + extent.size]
    begin, lengths = frame_lengths(stored, extent.length, extent.word)
    at = begin + int(lengths[:-1].sum()) if in_frame else begin - 4
    stored.release()
    content[extent.offset + at] ^= 0x40
    target.write_bytes(content)
    return f"the extent at {extent.offset}"


@pytest.mark.parametrize("number", [0, 2, 5])
@pytest.mark.parametrize("together", [True, False])
@pytest.mark.usefixtures("one_extent_each")
def test_a_frame_that_does_not_decode_is_data_loss_that_names_its_extent(
    blocks: Path, tmp_path: Path, number: int, together: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not together:
        monkeypatch.setattr(group, "GROUP_BYTES", EXTENT_BYTES)
    spoilt = tmp_path / "t.safetensors.pack"
    name = damage(blocks, spoilt, compressed(blocks)[number], in_frame=True)
    loading = DeviceLoading(CPU, PlainDecoder, merge_plainly)
    with (
        read(spoilt, lambda name, _: torch.empty_like(BLOCKS[name]), loading) as ring,
        pytest.raises(DataLoss, match=rf"t\.safetensors\.pack is damaged: {name} .* frames that do not decode"),
    ):
        loading.run(ring, Stream(CPU), Clock())


def test_the_first_extent_that_does_not_decode_is_named(packed: Path, tmp_path: Path, calls: list[int]) -> None:
    spoilt = tmp_path / "t.safetensors.pack"
    name = damage(packed, spoilt, compressed(packed)[1], in_frame=True)
    damage(spoilt, spoilt, compressed(packed)[-1], in_frame=True)
    with pytest.raises(DataLoss, match=f"{name} .* frames that do not decode"):
        load(spoilt, tensors=TENSORS)
    assert len(calls) == 1


@pytest.mark.parametrize("number", [0, -1])
@pytest.mark.usefixtures("calls")
def test_frame_lengths_that_do_not_fit_are_seen_before_anything_is_decoded(
    packed: Path, tmp_path: Path, number: int, calls: list[int]
) -> None:
    spoilt = tmp_path / "t.safetensors.pack"
    name = damage(packed, spoilt, compressed(packed)[number], in_frame=False)
    with pytest.raises(DataLoss, match=f"{name} .* its frames are said to end at"):
        load(spoilt, tensors=TENSORS)
    assert calls == []


def read_as_from_a_disk(reader: FileReader, offset: int, buffer: memoryview) -> int:
    FROM_CACHE(reader, offset, buffer)
    return min(len(buffer), reader.size - offset)


FROM_CACHE = FileReader.read


@pytest.mark.usefixtures("one_extent_each", "calls")
def test_what_comes_from_the_disk_itself_is_verified_before_it_is_decoded(
    blocks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FileReader, "read", read_as_from_a_disk)
    found = {name: torch.empty_like(tensor) for name, tensor in BLOCKS.items()}
    with WeightLoader(lambda _: None) as loader:
        loader.load([(blocks.name, blocks)], CPU, lambda name, _: found[name])
        assert loader.loaded.direct_bytes > 0
        assert loader._unverified == []
    assert_equal(found, BLOCKS)
    extent = damage_plane(blocks, tmp_path / "t.safetensors.pack")
    with pytest.raises(DataLoss, match=f"the extent at {extent.offset} .* has digest"):
        load(tmp_path / "t.safetensors.pack", tensors=BLOCKS)


class Fault:
    """Breaks at its third call."""

    def __init__(self, error: Exception) -> None:
        self._error = error
        self._calls = 0
        self._lock = threading.Lock()

    def __call__(self, *_: object) -> int:
        with self._lock:
            self._calls += 1
            if self._calls == 3:
                raise self._error
        return 0


FAULTS = {
    "reading": OSError("the disk is gone"),
    "decoding": RuntimeError("nvCOMP refused"),
    "placing": torch.OutOfMemoryError("no memory"),
    "telling": Cancelled("enough"),
}


@pytest.mark.parametrize("where", FAULTS)
@pytest.mark.usefixtures("one_extent_each", "calls")
def test_an_error_anywhere_ends_all_threads_and_shows_and_the_loader_loads_again(
    where: str, blocks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fault = Fault(FAULTS[where])
    faults = {name: fault if name == where else lambda *_: 0 for name in FAULTS}
    found = {name: torch.zeros_like(tensor) for name, tensor in BLOCKS.items()}
    monkeypatch.setattr(group, "GROUP_BYTES", EXTENT_BYTES)
    decode, read = PlainDecoder.decode, FileReader.read
    monkeypatch.setattr(PlainDecoder, "decode", lambda *args: [faults["decoding"](), decode(*args)][1])
    monkeypatch.setattr(FileReader, "read", lambda *args: faults["reading"]() or read(*args))

    def place(name: str, _: tuple[int, ...]) -> Tensor:
        faults["placing"]()
        return found[name]

    with WeightLoader(lambda _: faults["telling"]()) as loader:
        with pytest.raises(type(FAULTS[where]), match=str(FAULTS[where])):
            loader.load([(blocks.name, blocks)], CPU, place)
        assert [thread for thread in threading.enumerate() if thread.name.startswith("load")] == []
        for tensor in found.values():
            tensor.zero_()
        loader.load([(blocks.name, blocks)], CPU, place)
    assert_equal(found, BLOCKS)


def test_a_load_that_is_cancelled_reads_no_further(blocks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches that had been read, or were being read, apart."""
    monkeypatch.setattr(device_loading, "BATCH_BYTES", EXTENT_BYTES)
    monkeypatch.setattr(loaders, "find_decoder", lambda _: PlainDecoder)
    reads, read = list[int](), FileReader.read

    def counted(reader: FileReader, offset: int, buffer: memoryview) -> int:
        reads.append(offset)
        return read(reader, offset, buffer)

    monkeypatch.setattr(FileReader, "read", counted)

    def stop(_: int) -> None:
        raise Cancelled("enough")

    with WeightLoader(stop, max_lanes=1) as loader:
        with pytest.raises(Cancelled, match="enough"):
            loader.load([(blocks.name, blocks)], CPU, lambda name, _: torch.empty_like(BLOCKS[name]))
        assert len(reads) == 1


@pytest.mark.parametrize(("dtype", "most_frames"), [(torch.float8_e4m3fn, MAX_FRAMES), (torch.bfloat16, 64)])
def test_ones_which_are_stored_small_take_no_more_room_than_a_group_has(
    dtype: torch.dtype, most_frames: int, tmp_path: Path, calls: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "MAX_FRAMES", most_frames)
    for module in (group, group_decoder):
        monkeypatch.setattr(module, "GROUP_FRAMES", most_frames)
    ones = {"ones": torch.ones(200 << 20, dtype=torch.uint8).view(dtype)}
    path = pack(ones, tmp_path / "t.safetensors.pack")
    assert_equal(load(path, tensors=ones), ones)
    assert sum(calls) == (200 << 20) // dtype.itemsize // FRAME_BYTES
    assert max(calls) == most_frames


@pytest.mark.usefixtures("one_extent_each")
def test_a_batch_that_no_group_takes_is_said_to_be_our_own_fault(blocks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group, "GROUP_FRAMES", 31)  # an extent has 32
    loading = DeviceLoading(CPU, PlainDecoder, merge_plainly)
    with (
        read(blocks, lambda name, _: torch.empty_like(BLOCKS[name]), loading) as ring,
        pytest.raises(RuntimeError, match=r"a batch of 32 frames in \d+ bytes is larger than an empty group"),
    ):
        loading.run(ring, Stream(CPU), Clock())
