"""What the engine tells while it works, and how it is told to stop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from wan22.economy import Economy
from wan22.errors import Cancelled


class Stage(Enum):
    """What is being done, in this order."""

    ENCODING_TEXT = 1
    ENCODING_IMAGE = 2
    DENOISING = 3
    DECODING = 4


@dataclass(frozen=True)
class Progress:
    """How far a generation is; steps only while denoising."""

    stage: Stage
    step: int | None = None
    """Steps done."""
    num_steps: int | None = None
    economy: Economy | None = None
    """What is done from now on to need less memory; told when it becomes more."""


Report = Callable[[Progress], None]
ShouldStop = Callable[[], bool]
Check = Callable[[], None]
"""Called between portions of work; it may raise to end it."""


def check_stop(should_stop: ShouldStop) -> None:
    """Raises Cancelled when the caller wants the work to end."""
    if should_stop():
        raise Cancelled("The attempt was stopped on request.")
