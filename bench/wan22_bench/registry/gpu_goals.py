"""What is asked of a GPU, and its rows where there is none."""

from __future__ import annotations

from collections.abc import Sequence

from wan22_bench.report import Row

P8 = 60.0
"""GB/s of the model's bytes."""
P9 = 0.95
"""Of what the disk's own rate and the pack's ratio allow."""
P9C = 8.0
"""Seconds."""
FROM_CACHE = "loading a pack to the GPU out of the page cache, bytes of the model"
FROM_DISK = "loading a pack to the GPU from the disk, over the disk's own rate over the pack's ratio"
COLD_START = "from the start of a process to the first denoise step, t2v-a14b in float8, page cache warm"


def not_measured() -> Sequence[Row]:
    """The rows without values."""
    return [
        Row(id="P8", what=FROM_CACHE, value=None, unit="GB/s", goal=P8, at_least=True),
        Row(id="P9", what=FROM_DISK, value=None, unit="1", goal=P9, at_least=True),
        Row(id="P9c", what=COLD_START, value=None, unit="s", goal=P9C),
    ]
