"""What needs the extra `pack`, which the base install does without."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from wan22.errors import FailedPrecondition
from wan22.precision import Precision

if TYPE_CHECKING:
    from wan22.model_export import Export
    from wan22.model_packing import Packer


def packer(folder: Path, variant: str, precision: Precision = "bf16") -> Packer:
    """Packs a variant's weights in that folder. Raises FailedPrecondition where the extra is not installed."""
    with _needed():
        from wan22.model_packing import Packer  # noqa: PLC0415  # not at hand in every install
    return Packer(folder, variant, precision)


def export(folder: Path) -> Export:
    """Writes into that folder. Raises InvalidRequest unless it is empty, FailedPrecondition as `packer` does."""
    with _needed():
        from wan22.model_export import Export  # noqa: PLC0415  # not at hand in every install
    return Export(folder)


@contextmanager
def _needed() -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        text = f"Weights are packed by {error.name}, which is not installed: pip install 'wan22[pack]'."
        raise FailedPrecondition(text) from error
