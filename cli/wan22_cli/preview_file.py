"""The file that has a running generation's newest preview."""

from __future__ import annotations

from pathlib import Path

from wan22.durable_files import replace_file
from wan22_cli.terminal import note


class PreviewFile:
    """Replaced whole by each preview, so that a viewer that follows it never reads half of one."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._failed = False

    def write(self, image: bytes) -> None:
        """Makes it the newest; a disk that refuses is told of once, and ends no generation."""
        try:
            replace_file(self._path, image)
        except OSError as error:
            if not self._failed:
                note(f"The preview is not written: {error}.")
            self._failed = True
