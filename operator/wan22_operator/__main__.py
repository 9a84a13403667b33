"""Starts the operator: `python -m wan22_operator --worker-image IMAGE`."""

from __future__ import annotations

import sys

from wan22.program import run_service
from wan22_operator.service import run
from wan22_operator.settings import OperatorSettings


def main() -> int:
    """Returns the exit code."""
    return run_service("wan22_operator", "operator", OperatorSettings, run)


if __name__ == "__main__":
    sys.exit(main())
