"""The embedded store: SQLite in WAL mode, one process, one writer thread with group commit, readers beside it."""

from __future__ import annotations

import asyncio
import logging
import os
import queue
import sqlite3
import threading
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from sqlalchemy import Connection, CursorResult, Engine, Executable, create_engine, event, insert, select
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import QueuePool

from wan22.errors import ResourceExhausted, Unavailable, Wan22Error
from wan22.folder_lock import lock_folder
from wan22_gateway.store import migrate
from wan22_gateway.store.schema import identity

log = logging.getLogger(__name__)
T = TypeVar("T")
P = ParamSpec("P")

GROUP_LIMIT = 256
"""Most writes that share one commit: bounds how long the first of them waits."""
READERS = 4
"""Reader threads: SQLite readers do not block each other, and queries here are short."""


REMEMBERED = frozenset({"queue"})
"""Topics whose notifications are counted; most topics are one generation's and would only fill memory."""


class Memory:
    """What reads have made of the store, and how often each topic has been notified."""

    def __init__(self) -> None:
        self.versions: Counter[str] = Counter()
        self.values: dict[Hashable, tuple[int, Any]] = {}
        self._locks: defaultdict[Hashable, threading.Lock] = defaultdict(threading.Lock)

    def lock(self, key: Hashable) -> threading.Lock:
        """Lets one reader make a value and the others take it."""
        return self._locks[key]


class Transaction:
    """What a write or read sees: statements, one time for all of them, and whom to wake after the commit."""

    def __init__(self, connection: Connection, memory: Memory | None = None) -> None:
        self._connection = connection
        self._memory = memory
        self._versions = {} if memory is None else dict(memory.versions)
        self.now = time.time_ns() // 1000
        """Microseconds by the store's clock, which for SQLite is this machine's."""
        self.topics: set[str] = set()

    def execute(self, statement: Executable, parameters: Any = None) -> CursorResult[Any]:
        """Runs one statement."""
        return self._connection.execute(statement, parameters)

    def remember(
        self, key: Hashable, topic: str, make: Callable[[], T], good: Callable[Concatenate[T, ...], bool]
    ) -> T:
        """What `make` returns, or what another read has made of the store and `good(value, changed=…)` accepts.

        `changed` is true when something that notifies the topic was committed since. A write makes its own.
        """
        if self._memory is None:
            return make()
        with self._memory.lock(key):
            known = self._memory.values.get(key)
            version = self._versions.get(topic, 0)
            if known is not None and good(known[1], changed=known[0] < version):
                value: T = known[1]
                return value
            value = make()
            self._memory.values[key] = (version, value)
            return value

    def notify(self, topic: str) -> None:
        """Wakes whoever listens to the topic, once the transaction is durable."""
        self.topics.add(topic)


class Database:
    """Owns `folder`/store.sqlite; `write` answers after the fsync of its commit, which concurrent writes share.

    Raises FailedPrecondition (STORE_IN_USE) on construction when another process owns the folder, (STORE_TOO_NEW) when
    a newer version of wan22 has migrated it.
    """

    def __init__(self, folder: Path) -> None:
        self._lock = lock_folder(folder, "store", "gateway", "--store")
        self.path = folder / "store.sqlite"
        migrate.upgrade(f"sqlite:///{self.path}")
        self._writer_engine = _engine(self.path, size=1, begin="BEGIN IMMEDIATE")
        self._reader_engine = _engine(self.path, size=READERS, begin="BEGIN")
        with self._writer_engine.begin() as connection:
            if connection.execute(select(identity)).one_or_none() is None:
                connection.execute(insert(identity).values(store_epoch=str(uuid.uuid4()), page_key=os.urandom(32)))
        self._readers = ThreadPoolExecutor(READERS, "store-reader")
        self._writes: queue.SimpleQueue[_Write | None] = queue.SimpleQueue()
        self._listeners: dict[str, set[asyncio.Event]] = {}
        self._loop = asyncio.get_running_loop()
        self._memory = Memory()
        self._first_error: OperationalError | None = None
        self._writer = threading.Thread(target=self._write_forever, name="store-writer")
        self._writer.start()

    async def write(self, function: Callable[Concatenate[Transaction, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Runs a function in a transaction of its own and returns its result once that is durable.

        What the function raises is raised here, and its writes are undone. Raises ResourceExhausted when the disk is
        full, Unavailable on another error of the file system.
        """
        future: asyncio.Future[Any] = self._loop.create_future()
        self._writes.put(_Write(lambda tx: function(tx, *args, **kwargs), future))
        # A caller that goes away does not undo what is queued: it could not know whether it was written.
        result: T = await asyncio.shield(future)
        return result

    async def read(self, function: Callable[Concatenate[Transaction, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Runs a function on a consistent snapshot that holds every write that was answered before."""

        def run() -> T:
            with self._reader_engine.begin() as connection:
                return function(Transaction(connection, self._memory), *args, **kwargs)

        return await self._loop.run_in_executor(self._readers, run)

    @contextmanager
    def listen(self, *topics: str) -> Iterator[asyncio.Event]:
        """Yields an event that is set after each commit that notified one of the topics; the listener clears it."""
        wake = asyncio.Event()
        for topic in topics:
            self._listeners.setdefault(topic, set()).add(wake)
        try:
            yield wake
        finally:
            for topic in topics:
                self._listeners[topic].discard(wake)
                if not self._listeners[topic]:
                    del self._listeners[topic]

    async def close(self) -> None:
        """Finishes the queued writes and lets the folder go."""
        self._writes.put(None)
        await asyncio.to_thread(self._writer.join)
        self._readers.shutdown()
        self._writer_engine.dispose()
        self._reader_engine.dispose()
        os.close(self._lock)

    def _write_forever(self) -> None:
        open_ = True
        while open_:
            group: list[_Write] = []
            item = self._writes.get()
            while item is not None:
                group.append(item)
                if len(group) == GROUP_LIMIT:
                    break
                try:
                    item = self._writes.get_nowait()
                except queue.Empty:
                    break
            open_ = item is not None
            if group:
                self._commit(group)

    def _commit(self, group: list[_Write]) -> None:
        topics: set[str] = set()
        try:
            with self._writer_engine.begin() as connection:
                for item in group:
                    transaction = Transaction(connection)
                    try:
                        with connection.begin_nested():
                            item.result = self._call(item, transaction)
                        topics |= transaction.topics
                    except OperationalError:
                        raise
                    except Exception as error:  # noqa: BLE001  # handed to the caller, whose write alone is undone
                        item.error = error
        except OperationalError as error:
            # SQLite may have rolled all back by itself, so that undoing the savepoint failed too: tell of the first.
            failure = _explain(self._first_error or error)
            log.warning("A commit of %d writes failed: %s", len(group), failure.message)
            for item in group:
                item.error = failure
            topics = set()
        for topic in topics & REMEMBERED:
            self._memory.versions[topic] += 1  # before anybody is told, so that whoever reads then sees it
        self._loop.call_soon_threadsafe(self._settle, group, topics)

    def _call(self, item: _Write, transaction: Transaction) -> Any:
        self._first_error = None
        try:
            return item.function(transaction)
        except OperationalError as error:
            self._first_error = error
            raise

    def _settle(self, group: list[_Write], topics: set[str]) -> None:
        for item in group:
            item.settle()
        for topic in topics:
            for wake in self._listeners.get(topic, ()):
                wake.set()


class _Write:
    def __init__(self, function: Callable[[Transaction], Any], future: asyncio.Future[Any]) -> None:
        self.function = function
        self.result: Any = None
        self.error: Exception | None = None
        self._future = future

    def settle(self) -> None:
        if self._future.done():
            return
        if self.error is not None:
            self._future.set_exception(self.error)
        else:
            self._future.set_result(self.result)


def _explain(error: OperationalError) -> Wan22Error:
    if "full" in str(error.orig):
        return ResourceExhausted(
            f"The gateway's store cannot grow: {error.orig}. Free space on its disk.", retry_after=10
        )
    return Unavailable(f"The gateway's store failed: {error.orig}.", retry_after=1)


def _engine(path: Path, *, size: int, begin: str) -> Engine:
    engine = create_engine(
        f"sqlite:///{path}",
        poolclass=QueuePool,
        pool_size=size,
        max_overflow=0,
        connect_args={"check_same_thread": False, "timeout": 30, "isolation_level": None},
    )

    @event.listens_for(engine, "connect")
    def configure(connection: sqlite3.Connection, _: object) -> None:
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def start(connection: Connection) -> None:
        connection.exec_driver_sql(begin)

    return engine
