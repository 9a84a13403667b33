"""What has happened to generations, told to whoever counts once it is durable. Only this process's own writes are."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Accepted:
    """Generations that became QUEUED."""

    variant: str
    pool: str
    count: int


@dataclass(frozen=True, slots=True)
class Started:
    """A generation's first attempt has started."""

    variant: str
    pool: str
    waited: float
    """Seconds since it was accepted."""


@dataclass(frozen=True, slots=True)
class Ended:
    """A generation has reached its final state."""

    variant: str
    pool: str
    state: str
    ran: float | None
    """Seconds since its first attempt started; None where none did."""


@dataclass(frozen=True, slots=True)
class AttemptLost:
    """An attempt ended with its worker: the generation is QUEUED again."""

    variant: str
    pool: str


@dataclass(frozen=True, slots=True)
class Written:
    """A write was answered."""

    seconds: float
    """Since it was asked for: its wait for the commit before, its own statements and its fsync."""
    failed: bool


Fact = Accepted | Started | Ended | AttemptLost | Written
