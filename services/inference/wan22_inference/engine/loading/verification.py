"""Holds what was decoded without it against its digests, once the model runs.

Hashing takes a core 0.5 s a GB, more than all the rest of a load. So what came out of the page cache is decoded at once
and verified behind; no video leaves before it is. What came from the disk itself was verified on its way.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from wan22.pack.layout import Extent
from wan22.pack.reader import check_extent
from wan22_inference.engine.loading.sources import Source, blaming


def verify(extents: Sequence[tuple[Source, Extent]], check: Callable[[], object]) -> None:
    """Returns when all have their digests, by a thread a core.

    Raises DataLoss naming file and extent, and what `check` raises, which is called often.
    """

    def one(item: tuple[Source, Extent]) -> None:
        source, extent = item
        check()
        buffer = memoryview(bytearray(extent.size))
        source.reader.read(extent.offset, buffer)
        with blaming(source.name):
            check_extent(extent, buffer)

    with ThreadPoolExecutor(len(os.sched_getaffinity(0)), "verify") as pool:
        futures = [pool.submit(one, item) for item in extents]
        try:
            for future in futures:
                future.result()
        finally:
            for future in futures:
                future.cancel()
