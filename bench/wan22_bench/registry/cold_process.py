"""A process that starts as a worker does, and ends at its first denoise step; it imports nothing of the benchmark.

`python -m wan22_bench.registry.cold_process FOLDER VARIANT DEVICE START` prints how long each part took, as JSON. START
is the monotonic clock's time when the process was asked for.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from wan22_inference.engine.device_context import device_context


def main() -> None:
    """Prints, by part, the seconds from START to its end."""
    folder, name, place, start = Path(sys.argv[1]), sys.argv[2], sys.argv[3], float(sys.argv[4])
    taken = {"its first line": time.monotonic() - start}
    with device_context(place):
        import torch  # noqa: PLC0415  # as a worker does: beside the device's context

        taken["torch"] = time.monotonic() - start
        from wan22_bench.registry.first_step import first_step  # noqa: PLC0415  # the engine

        taken["its imports"] = time.monotonic() - start
    taken["the device's context"] = time.monotonic() - start
    first_step(folder, name, torch.device(place), lambda part: taken.setdefault(part, time.monotonic() - start))
    sys.stdout.write(json.dumps(taken) + "\n")


if __name__ == "__main__":
    main()
