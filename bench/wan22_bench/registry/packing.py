"""How small weights are kept, and how fast they are packed."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from wan22.pack.layout import Layout
from wan22.pack.writer import pack_file
from wan22_bench.registry import peers
from wan22_bench.report import Row

P10_GOAL, P10B_GOAL, P10C_GOAL = 0.69, 0.415, 0.445
P9B_SHARE = 0.8
A14B = {"float8": 62.65e9, "bfloat16": 5.86e9, "float32": 0.51e9}
"""Bytes of a version by how they are kept: the linear layers of the experts' blocks but the first two, and of UMT5; the
rest of both; the VAE. All but the VAE counted in bfloat16."""
TIMES = 3


@dataclass
class Taken:
    """The least that a piece of work took."""

    seconds: float = math.inf
    processor_seconds: float = math.inf
    """Of all threads, in the kernel too."""

    def add(self, work: Callable[[], object]) -> None:
        """Does it once more."""
        start, processor_start = time.perf_counter(), time.process_time()
        work()
        self.seconds = min(self.seconds, time.perf_counter() - start)
        self.processor_seconds = min(self.processor_seconds, time.process_time() - processor_start)


def pack(plain: Path, packed: Path) -> Layout:
    """Packs a file."""
    return pack_file(plain, packed, lambda _: None)


def _in_order(plain: Path, packed: Path) -> Iterator[Row]:
    """What of packing goes in order, or at a disk's own rate, each alone: bounds of the row before on many cores."""
    size, written = plain.stat().st_size, packed.with_name("written")

    def row(what: str, work: Callable[[], object]) -> Row:
        taken = Taken()
        for _ in range(TIMES):
            taken.add(work)
        return Row(id=None, what=f"{what} alone, bytes of the model", value=size / 1e9 / taken.seconds, unit="GB/s")

    try:
        yield row("writing a pack past the page cache", lambda: peers.write_directly(written, packed.stat().st_size))
    finally:
        written.unlink(missing_ok=True)
    yield row("the digest of a source", lambda: peers.digest(plain))


def rows(plain: Path, packed: Path, eight: Path) -> Iterator[Row]:
    """Packs the bfloat16 weights, and the same quantised, and tells of both; leaves the packs of both.

    `eight` has the quantised weights; its pack is beside it, with `.pack` at the end.
    """
    ours, theirs = Taken(), Taken()
    for _ in range(TIMES):  # in turns, since other work on the machine comes and goes
        ours.add(lambda: pack(plain, packed))
        theirs.add(lambda: peers.zstd_alone(plain))
    size = plain.stat().st_size
    ratio = packed.stat().st_size / size
    yield Row(id="P10", what="stored bytes over bytes, bfloat16", value=ratio, unit="1", goal=P10_GOAL)
    eight_packed = eight.with_name(eight.name + ".pack")
    pack(eight, eight_packed)
    eight_ratio = eight_packed.stat().st_size / size
    yield Row(
        id="P10b",
        what="stored bytes of weights in float8 and their scales over their bytes in bfloat16",
        value=eight_ratio,
        unit="1",
        goal=P10B_GOAL,
    )
    four = 1.0 - (1.0 - ratio) / 2  # one byte of four is an exponent
    stored = A14B["float8"] * eight_ratio + A14B["bfloat16"] * ratio + A14B["float32"] * four
    yield Row(
        id="P10b",
        what="the same over a version of A14B, by these ratios: float8 in linear layers of experts and text encoder",
        value=stored / sum(A14B.values()),
        unit="1",
        goal=P10C_GOAL,
    )
    zstd = size / 1e9 / theirs.seconds
    yield Row(
        id="P9b",
        what="packing bfloat16 weights, digests of source and extents included; peer: zstd's level 1 alone",
        value=size / 1e9 / ours.seconds,
        unit="GB/s",
        goal=P9B_SHARE * zstd,
        at_least=True,
        peer=zstd,
    )
    yield from _in_order(plain, packed)
    zstd = size / 1e9 / theirs.processor_seconds
    yield Row(
        id="P9b",
        what="the same by processor time, which other work on the machine hardly changes",
        value=size / 1e9 / ours.processor_seconds,
        unit="GB/s a core",
        goal=P9B_SHARE * zstd,
        at_least=True,
        peer=zstd,
    )
