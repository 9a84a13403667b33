"""Writes tests/chart/golden/*.yaml, what the chart installs by each file of examples/values; then `git diff` them."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from wan22_testing.chart import EXAMPLES, GOLDEN, Chart, golden_text
from wan22_testing.cluster.programs import Programs


def main() -> int:
    """Returns the exit code."""
    with tempfile.TemporaryDirectory() as folder:
        chart = Chart(Programs.find(), Path(folder))
        for example in sorted(EXAMPLES.glob("*.yaml")):
            (GOLDEN / example.name).write_text(golden_text(chart.example(example)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
