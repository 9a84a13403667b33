"""Where compiled kernels stay, for the next worker."""

from __future__ import annotations

import os
from pathlib import Path

VARIABLE = "TRITON_CACHE_DIR"
"""Triton's own, which is obeyed where it is set."""


def keep_kernels(cache: Path) -> Path:
    """Has Triton keep what it compiles in the cache folder of models, before any kernel is used; returns where.

    A worker that comes to a machine which holds its model then finds its kernels there too. Each lies under a digest of
    its source, constants, card and compiler, so that no version of anything takes another's.
    """
    return Path(os.environ.setdefault(VARIABLE, str(cache / "kernels")))
