"""Copies google/rpc's protos from the installed package to a folder, for buf: there may be no network."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import google.rpc

if __name__ == "__main__":
    target = Path(sys.argv[1]) / "google" / "rpc"
    target.mkdir(parents=True, exist_ok=True)
    source = Path(next(iter(google.rpc.__path__)))
    for proto in source.glob("*.proto"):
        shutil.copy(proto, target / proto.name)
