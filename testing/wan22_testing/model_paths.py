"""A model's folder as the engine takes it."""

from __future__ import annotations

from pathlib import Path


def model_paths(folder: Path) -> dict[str, Path]:
    """All files, by their paths in the model."""
    return {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
