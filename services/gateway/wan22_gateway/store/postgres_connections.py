"""Connections to PostgreSQL: how they are made, what their failures mean, and which of these pass by themselves."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import psycopg
from psycopg import errors
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from sqlalchemy import Connection, Engine, create_engine, text
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.pool import QueuePool

from wan22.errors import Reason, ResourceExhausted, Unavailable, Wan22Error

T = TypeVar("T")
RIDE_OUT_SECONDS = 10.0
"""How long a transaction is tried: a restart of PostgreSQL takes less, and callers have deadlines of their own."""
PAUSE_SECONDS = 0.1
"""Between two tries."""
IDLE_SECONDS = 5
"""How long a writing session may do nothing within a transaction: a third of a lease, a thousandfold of a write."""
DEFAULTS: dict[str, Any] = {
    "application_name": "wan22-gateway",
    "connect_timeout": 5,
    # A peer that is gone without a word is noticed within 10 s.
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
    "target_session_attrs": "primary",
}
WRITING = f"-c synchronous_commit=on -c idle_in_transaction_session_timeout={IDLE_SECONDS}s -c lock_timeout=8s"
READING = "-c default_transaction_isolation=repeatable\\ read -c default_transaction_read_only=on"
MIGRATING = "-c lock_timeout=2s"
"""A statement that waits for a table keeps everybody else waiting behind it: it gives way and comes again."""


class Connections:
    """Makes connections to one database."""

    def __init__(self, url: str, password_file: Path | None = None) -> None:
        self._url = url
        self._password_file = password_file

    def connect(self, options: str = "") -> psycopg.Connection[Any]:
        """A new connection, its session with these options. Raises psycopg.OperationalError, OSError."""
        given = {**DEFAULTS, **conninfo_to_dict(self._url)}
        given["options"] = f"{given.get('options', '')} {options}".strip()
        if self._password_file is not None:
            given["password"] = self._password_file.read_text().strip()  # each time: it may have been changed
        return psycopg.connect(make_conninfo("", **given))

    def engine(self, size: int, options: str = "") -> Engine:
        """A pool of at most so many connections."""
        return create_engine(
            "postgresql+psycopg://",
            hide_parameters=True,  # prompts are among them, and errors are logged
            creator=lambda: self.connect(options),
            poolclass=QueuePool,
            pool_size=size,
            max_overflow=0,
            pool_timeout=RIDE_OUT_SECONDS,
        )


def clock(connection: Connection) -> int:
    """Microseconds since 1970 by the server's clock, which is the store's."""
    now = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
    return int(connection.execute(text(now)).scalar_one())


def ride_out(run: Callable[[], T]) -> T:
    """Runs something again as long as the connection or a conflict fails it.

    Raises Unavailable, ResourceExhausted, and DBAPIError for a statement that is wrong.
    """
    deadline = time.monotonic() + RIDE_OUT_SECONDS
    while True:
        try:
            return run()
        except DBAPIError as error:
            if not _is_passing(error) or time.monotonic() > deadline:
                if error.connection_invalidated or isinstance(error, OperationalError):
                    raise explain(error) from error
                raise
        except OSError as error:  # of the password's file
            raise _unavailable(str(error)) from error
        time.sleep(PAUSE_SECONDS)


def _is_passing(error: DBAPIError) -> bool:
    """Whether another try may succeed: the connection was lost or refused, or another transaction was in the way."""
    conflicts = (errors.SerializationFailure, errors.DeadlockDetected, errors.LockNotAvailable)
    # Without a state it is the client's own word: nobody answers, or the line is cut.
    lost = error.connection_invalidated or (
        isinstance(error.orig, psycopg.OperationalError) and error.orig.sqlstate is None
    )
    ending = (errors.AdminShutdown, errors.CrashShutdown, errors.CannotConnectNow, errors.TooManyConnections)
    return lost or isinstance(error.orig, (*conflicts, *ending))


def explain(error: DBAPIError) -> Wan22Error:
    """What a failure of PostgreSQL means to a caller."""
    problem = str(error.orig).strip().partition("\n")[0]
    if isinstance(error.orig, errors.DiskFull):
        return ResourceExhausted(
            f"The gateway's store cannot grow: {problem}. Free space on PostgreSQL's disk.", retry_after=10
        )
    return _unavailable(problem)


def _unavailable(problem: str) -> Unavailable:
    text = f"The gateway's store, PostgreSQL, is away ({problem.rstrip('.')}): the call can be repeated."
    return Unavailable(text, reason=Reason.STORE_UNAVAILABLE, retry_after=1)
