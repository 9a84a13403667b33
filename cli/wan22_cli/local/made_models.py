"""Which of the registry's models `wan22 up` has made, and of what: a person's it leaves alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from wan22.durable_files import replace_file


@dataclass(frozen=True)
class Made:
    """What `up` knows of a model that it has made."""

    version: str | None = None
    """Its name; None while it is being made, also where that never ended."""
    sources: str | None = None
    """The digest of what it was made of; None of a release that did not keep it."""


class MadeModels:
    """The notes, in a file that each change replaces."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.kept = path.exists()
        """False in a folder that is new, or of a release that kept no notes."""
        self._made: dict[str, Made] = {}
        if self.kept:
            self._made = {variant: Made(**made) for variant, made in json.loads(path.read_text()).items()}

    def begin(self, found: Mapping[str, str]) -> None:
        """Begins the notes: what is found, versions by their variants, was made by a release that kept none."""
        self._made = {variant: Made(version) for variant, version in found.items()}
        self._write()

    def note(self, variant: str, made: Made) -> None:
        """Keeps what is known of a variant's model from now on."""
        self._made[variant] = made
        self._write()

    def is_outdated(self, variant: str, version: str, sources: str) -> bool:
        """Whether a version that is there was made by `up`, and of other sources than these."""
        made = self._made.get(variant)
        if made is None or made.version not in {None, version}:
            return False  # imported by a person
        return made.sources != sources

    def _write(self) -> None:
        made = {variant: asdict(made) for variant, made in self._made.items()}
        replace_file(self._path, f"{json.dumps(made, indent=2)}\n".encode())
