"""The embedded store: SQLite in WAL mode, one process, one writer thread with group commit, readers beside it."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import TypeVar

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import QueuePool

from wan22.errors import Reason, ResourceExhausted, Unavailable, Wan22Error
from wan22.folder_lock import lock_folder
from wan22_gateway.store import migrate
from wan22_gateway.store.commit_counts import CommitCounts
from wan22_gateway.store.database import READERS, Database, Transaction, fail_group, run_group
from wan22_gateway.store.group_writer import Write
from wan22_gateway.store.remembered import TOPICS

T = TypeVar("T")
PRAGMAS = ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "secure_delete=ON", "temp_store=MEMORY")
"""Without the last, what a savepoint could undo goes to a temporary file, from 64 KiB on: as many pages, with prompts
among them, as are committed."""
READER_CACHE = "cache_size=-512"
"""KiB of pages that each reader keeps: the file is in the system's cache. SQLite's own 2 MB would fill little by
little as the file grows, and look like a leak for an hour."""
ERASE_SECONDS = 1.0
"""How long emptying the write-ahead log waits for readers, while writers wait for it."""


class SqliteDatabase(Database):
    """Owns `folder`/store.sqlite: its lock file proves that no other process writes.

    Raises FailedPrecondition (STORE_IN_USE) on construction when another process owns the folder, (STORE_TOO_NEW) when
    a newer version of wan22 has migrated it.
    """

    alone = True

    def __init__(self, folder: Path) -> None:
        self._lock = lock_folder(folder, "store", "gateway", "--store")
        self.path = folder / "store.sqlite"
        self._writer_engine = _engine(self.path, size=1, begin="BEGIN IMMEDIATE", pragmas=PRAGMAS)
        migrate.upgrade(self._writer_engine)
        self._reader_engine = _engine(self.path, size=READERS, begin="BEGIN", pragmas=(*PRAGMAS, READER_CACHE))
        self._versions: Counter[str] = Counter()
        self._counts = CommitCounts()
        self._readers = ThreadPoolExecutor(READERS, "store-reader")
        super().__init__()

    async def erase(self) -> bool:
        """Empties the write-ahead log, which has earlier states of pages; deleted content in pages is zeros at once.

        False when somebody reads or writes just now. Raises ResourceExhausted when the disk is full, Unavailable.
        """
        return await asyncio.to_thread(_truncate_log, self.path)

    async def close(self) -> None:
        """Finishes the queued writes and lets the folder go."""
        await super().close()
        self._readers.shutdown()
        self._writer_engine.dispose()
        self._reader_engine.dispose()
        os.close(self._lock)

    def watermark(self, topics: Sequence[str]) -> Hashable | None:
        """As in Database: all commits are made here."""
        return self._counts.watermark(topics)

    async def _snapshot(self, function: Callable[[Transaction], T]) -> T:
        return await self._loop.run_in_executor(self._readers, self._read, function)

    def _read(self, function: Callable[[Transaction], T]) -> T:
        try:
            with self._reader_engine.begin() as connection:
                return function(Transaction(connection, _clock, self._memory, _Count(dict(self._versions))))
        except OperationalError as error:
            raise _explain(error.orig) from error

    def _commit(self, group: Sequence[Write]) -> None:
        try:
            with self._writer_engine.begin() as connection:
                topics = run_group(connection, group, lambda: Transaction(connection, _clock))
                self._counts.begin(topics)
        except OperationalError as error:
            fail_group(group, _explain(error.orig))
            topics = set()
        for topic in topics & TOPICS:
            self._versions[topic] += 1  # before anybody is told, so that whoever reads then sees it
        self._counts.end()
        self._tell(group, topics)


class _Count:
    """A `History` by the number of commits, taken before the read's snapshot: all of them were made here."""

    def __init__(self, versions: Mapping[str, int]) -> None:
        self._versions = versions

    def position(self, topic: str) -> int:
        return self._versions.get(topic, 0)

    def changed(self, topic: str, since: Hashable, age: float) -> bool:  # noqa: ARG002  # the count needs no age
        return since != self.position(topic)


def _clock() -> int:
    """The machine's own."""
    return time.time_ns() // 1000


def _explain(error: BaseException | None) -> Wan22Error:
    """For what SQLite says of its files."""
    if "full" in str(error):
        return ResourceExhausted(f"The gateway's store cannot grow: {error}. Free space on its disk.", retry_after=10)
    text = f"The gateway's store failed: {error}."
    return Unavailable(text, reason=Reason.STORE_UNAVAILABLE, retry_after=1)


def _truncate_log(path: Path) -> bool:
    """By a connection of its own, since it must be in no transaction and may wait for others only shortly."""
    try:
        with closing(sqlite3.connect(path, timeout=ERASE_SECONDS)) as connection:
            busy, _, _ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    except sqlite3.OperationalError as error:  # on a full disk it cannot bring its pages to the file
        raise _explain(error) from error
    return not busy


def _engine(path: Path, *, size: int, begin: str, pragmas: Sequence[str]) -> Engine:
    engine = create_engine(
        f"sqlite:///{path}",
        hide_parameters=True,  # prompts are among them, and errors are logged
        poolclass=QueuePool,
        pool_size=size,
        max_overflow=0,
        connect_args={"check_same_thread": False, "timeout": 30, "isolation_level": None},
    )

    @event.listens_for(engine, "connect")
    def configure(connection: sqlite3.Connection, _: object) -> None:
        for pragma in pragmas:
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def start(connection: Connection) -> None:
        connection.exec_driver_sql(begin)

    return engine
