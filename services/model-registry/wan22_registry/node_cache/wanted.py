"""The list of what callers have asked to keep, on disk beside the blobs, so that it survives a restart."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from wan22.durable_files import replace_file
from wan22.errors import DataLoss, InvalidRequest
from wan22_registry.node_cache.kept_version import check_reference


class Wanted:
    """`prefetch.json` of a cache folder."""

    def __init__(self, root: Path) -> None:
        self._path = root / "prefetch.json"

    def read(self) -> list[str]:
        """The references; none where there is no list yet. Raises DataLoss for a file that is no such list."""
        try:
            return [check_reference(reference) for reference in json.loads(self._path.read_bytes())]
        except FileNotFoundError:
            return []
        except (AttributeError, InvalidRequest, TypeError, ValueError) as error:
            text = f"{self._path} is no list of versions ({error}): remove it, and ask for the versions again."
            raise DataLoss(text) from error

    def write(self, references: Iterable[str]) -> None:
        """Makes these the list, durably and in one step."""
        replace_file(self._path, json.dumps(sorted(references)).encode())
