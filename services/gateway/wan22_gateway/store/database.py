"""The durable store as its users see it: functions run in transactions, and topics that wake who listens."""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any, Concatenate, ParamSpec, TypeVar

from sqlalchemy import Connection, CursorResult, Executable, Table, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError, OperationalError

from wan22.errors import Wan22Error
from wan22_gateway.store.bulk import insert_many
from wan22_gateway.store.facts import Fact
from wan22_gateway.store.group_writer import GroupWriter, Write
from wan22_gateway.store.remembered import History, Memory

log = logging.getLogger(__name__)
T = TypeVar("T")
P = ParamSpec("P")
READERS = 4
"""Reader threads: queries here are short, and readers do not block each other."""


class Transaction:
    """What a write or read sees: statements, one time for all of them, and whom to wake after the commit."""

    def __init__(
        self,
        connection: Connection,
        clock: Callable[[], int],
        memory: Memory | None = None,
        history: History | None = None,
    ) -> None:
        self._connection = connection
        self._clock = clock
        self._memory = memory
        self._history = history
        self.topics: set[str] = set()
        self.facts: list[Fact] = []
        self._made: dict[Hashable, Any] = {}

    @cached_property
    def now(self) -> int:
        """Microseconds since 1970 by the store's clock, the same throughout the transaction."""
        return self._clock()

    def execute(self, statement: Executable, parameters: Any = None) -> CursorResult[Any]:
        """Runs one statement."""
        return self._connection.execute(statement, parameters)

    def insert_many(self, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
        """Inserts rows that name the same columns, if there are any."""
        insert_many(self._connection, table, rows)

    def upsert(self, table: Table) -> sqlite.Insert | postgresql.Insert:
        """An INSERT with `on_conflict_do_update` and `on_conflict_do_nothing`, which both dialects have."""
        return postgresql.insert(table) if self._connection.dialect.name == "postgresql" else sqlite.insert(table)

    def remember(
        self, key: Hashable, topic: str, make: Callable[[], T], good: Callable[Concatenate[T, ...], bool]
    ) -> T:
        """What `make` returns, or what another read has made of the store and `good(value, changed=…)` accepts.

        `changed` is true when something that notifies the topic was committed since. A write makes its own.
        """
        if self._memory is None or self._history is None:
            return make()
        return self._memory.get(key, topic, self._history, make, good)

    def once(self, key: Hashable, make: Callable[[], T]) -> T:
        """What `make` returns; a read, which sees one state of the store throughout, makes it once for each key."""
        if self._memory is None:
            return make()
        if key not in self._made:
            self._made[key] = make()
        made: T = self._made[key]
        return made

    def note(self, fact: Fact) -> None:
        """Tells a fact to `Database.observe`, once the transaction is durable."""
        self.facts.append(fact)

    def notify(self, topic: str) -> None:
        """Wakes whoever listens to the topic, once the transaction is durable."""
        self.topics.add(topic)


class Database(ABC):
    """A store of one or several gateway processes; `write` answers once it is durable.

    Functions may run more than once and must do nothing but execute statements and notify.
    """

    alone: bool
    """True where this process is known to be the only one: whatever is claimed was claimed by one that is gone."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._listeners: dict[str, set[asyncio.Event]] = {}
        self._memory = Memory()
        self.observe: Callable[[Fact], None] = lambda _: None
        """Is told on the event loop what this process has written."""
        self._writer = GroupWriter("store-writer", self._commit)

    async def write(self, function: Callable[Concatenate[Transaction, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Runs a function in a transaction of its own, as if alone in the store; returns its result once durable.

        What the function raises is raised here, and its writes are undone. Raises ResourceExhausted when the disk is
        full, Unavailable when the store cannot be reached.
        """
        return await self._queue(self._writer, lambda tx: function(tx, *args, **kwargs))

    async def write_own(
        self, function: Callable[Concatenate[Transaction, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """As `write`, for a function that is right beside any other one: it changes single rows, each on a condition.

        It waits for nothing but these rows, so that leases are renewed while somebody decides about the queue.
        """
        return await self._queue(self._own_writer, lambda tx: function(tx, *args, **kwargs))

    async def read(self, function: Callable[Concatenate[Transaction, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Runs a function on a consistent snapshot that holds every write that was answered before.

        Raises Unavailable when the store cannot be reached, ResourceExhausted where a read lacks room on its disk.
        """
        return await self._snapshot(lambda tx: function(tx, *args, **kwargs))

    def watermark(self, topics: Sequence[str]) -> Hashable | None:  # noqa: ARG002  # for those that can tell
        """Something that changes with every commit that notifies one of the topics, told without asking the store.

        None where that cannot be told, since other processes write, and while such a commit is under way.
        """
        return None

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

    async def ask(self) -> None:
        """Returns when the store has answered, at the first try. Raises Unavailable."""
        await self.read(lambda tx: tx.execute(select(1)).one())

    async def erase(self) -> bool:
        """Takes the content of deleted rows out of the store's files, as far as it is for us to do; false to try again.

        PostgreSQL does it by itself, by its autovacuum and its write-ahead log's retention.
        """
        return True

    async def close(self) -> None:
        """Finishes the queued writes and lets the store go."""
        await asyncio.to_thread(self._writer.close)

    @property
    def _own_writer(self) -> GroupWriter:
        return self._writer

    @abstractmethod
    def _commit(self, group: Sequence[Write]) -> None:
        """Runs and commits a group of writes in the writer's thread, then calls `_tell`."""

    @abstractmethod
    async def _snapshot(self, function: Callable[[Transaction], T]) -> T:
        """Runs a function on a snapshot, in a reader's thread."""

    async def _queue(self, writer: GroupWriter, function: Callable[[Transaction], T]) -> T:
        future: asyncio.Future[Any] = self._loop.create_future()
        writer.add(Write(function, future))
        # A caller that goes away does not undo what is queued: it could not know whether it was written.
        result: T = await asyncio.shield(future)
        return result

    def _tell(self, group: Sequence[Write], topics: set[str]) -> None:
        """Answers the writes of a group, and wakes who listens to its topics."""
        self._loop.call_soon_threadsafe(self._settle, group, topics)

    def _settle(self, group: Sequence[Write], topics: set[str]) -> None:
        for item in group:
            item.settle()
            for fact in item.facts:
                self.observe(fact)
        self._wake(topics)

    def _wake(self, topics: set[str]) -> None:
        for topic in topics:
            for wake in self._listeners.get(topic, ()):
                wake.set()


def run_group(connection: Connection, group: Sequence[Write], begin: Callable[[], Transaction]) -> set[str]:
    """Runs writes in one transaction, each in a savepoint that undoes it alone when it fails; returns their topics.

    Raises DBAPIError when the store, not a write, is at fault: then all of them are undone.
    """
    topics: set[str] = set()
    for item in group:
        item.result = item.error = first = None
        item.noted = ()
        transaction = begin()
        try:
            with connection.begin_nested():
                try:
                    item.result = item.function(transaction)
                except DBAPIError as error:
                    first = error
                    raise
            topics |= transaction.topics
            item.noted = transaction.facts
        except DBAPIError as error:
            # The store may have rolled all back by itself, so that undoing the savepoint failed too: tell of the first.
            fault = first or error
            if isinstance(fault, OperationalError) or fault.connection_invalidated:
                raise fault from None
            item.error = fault
        except Exception as error:  # noqa: BLE001  # handed to the caller, whose write alone is undone
            item.error = error
    return topics


def fail_group(group: Sequence[Write], failure: Wan22Error) -> None:
    """Fails every write of a group."""
    log.warning("A commit of %d writes failed: %s", len(group), failure.message)
    for item in group:
        item.result, item.error, item.noted = None, failure, ()
