"""The shared store: PostgreSQL, for several gateway processes at once.

Isolation. A write decides on what it reads: how much is queued, what a tenant has had, which worker is free. Under READ
COMMITTED two such writes of two replicas could both decide on what the other one is about to change, and under
SERIALIZABLE nearly any two of them would conflict, since all read the queue. So `write` takes one advisory lock at the
beginning of its transaction, holds it until its commit is visible, and runs under READ COMMITTED: each of its
statements sees all that was decided before, and functions are right as if they were alone, as in the embedded store.
That costs little: a replica's writes share transactions (group commit), and PostgreSQL lets only one transaction commit
at a time that has sent NOTIFY, which all of these have.

`write_own` takes no lock. It is for functions that change rows of one generation on condition of its fence: PostgreSQL
locks a row from the first change to the commit and checks the condition again on what it finds then, so that an old
fence changes nothing, and the numbers of events, taken from that row, have neither gaps nor doubles. Where they meet a
deciding write in the opposite order of two rows, PostgreSQL ends one of the two, and it is run again.

A claim or takeover skips rows that somebody is changing (FOR UPDATE SKIP LOCKED), so that no replica waits for another
one's row; it looks again soon. A replica that stops in the middle of a transaction, paused or cut off, loses its
session after IDLE_SECONDS, and with it what it held.

Reads are REPEATABLE READ: one snapshot each, which those that wait for a connection share. What they remember of it
(`Transaction.once`, the time) they share, too: each statement is a way to the server and back.

Trouble. What a lost connection or a deadlock has undone is run again for RIDE_OUT_SECONDS. Where the connection broke
at the commit, a row of `commits` tells whether it took place: the same row is inserted once more, which waits until the
fate of the first one is decided.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, delete, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import DBAPIError

from wan22.errors import FailedPrecondition, Reason, Wan22Error
from wan22_gateway.store import migrate
from wan22_gateway.store.database import READERS, Database, Transaction, fail_group, run_group
from wan22_gateway.store.group_reader import GroupReader, Read
from wan22_gateway.store.group_writer import GroupWriter, Write
from wan22_gateway.store.notifications import Notifications, announce
from wan22_gateway.store.postgres_connections import (
    MIGRATING,
    READING,
    RIDE_OUT_SECONDS,
    WRITING,
    Connections,
    clock,
    explain,
    ride_out,
)
from wan22_gateway.store.remembered import TOPICS
from wan22_gateway.store.schema import commits

log = logging.getLogger(__name__)
T = TypeVar("T")
MIGRATION_SECONDS = 60.0
"""How long a new process waits for the migration that its version needs."""
KEPT_SECONDS = 600
"""How long commits are remembered: far beyond any try and any view."""
LOCK = "SELECT pg_advisory_xact_lock(hashtext('wan22 store'))"


class PostgresDatabase(Database):
    """A database that this version's migrations have prepared, and that other gateway processes use too."""

    alone = False

    def __init__(self, connections: Connections) -> None:
        """Connects when it is needed. See `open_postgres`, which waits for the schema."""
        self._writers = connections.engine(2, WRITING)
        self._read_engine = connections.engine(READERS, READING)
        self._asking = connections.engine(1, READING)
        self._swept = time.monotonic()
        self._name = secrets.token_hex(8)
        super().__init__()
        self._own = GroupWriter("store-own-writer", self._commit_own)
        self._group_reader = GroupReader("store-reader", READERS, self._make)
        self._notifications = Notifications(connections.connect, self._name, self._heard)

    async def ask(self) -> None:
        """As in Database: by a connection of its own, since those of readers may all be waited for."""

        def run() -> None:
            try:
                with self._asking.connect() as connection:
                    connection.execute(text("SELECT 1"))
            except DBAPIError as error:
                raise explain(error) from error

        await asyncio.to_thread(run)

    async def close(self) -> None:
        """Finishes the queued writes and disconnects."""
        await asyncio.to_thread(self._own.close)
        await asyncio.to_thread(self._group_reader.close)
        await super().close()
        await asyncio.to_thread(self._notifications.close)
        self._writers.dispose()
        self._read_engine.dispose()
        self._asking.dispose()

    async def until_it_listens(self) -> None:
        """Returns once wake-ups come, or when they do not come in time: they are waited for by nobody for long."""
        await asyncio.to_thread(self._notifications.began.wait, RIDE_OUT_SECONDS)

    @property
    def _own_writer(self) -> GroupWriter:
        return self._own

    async def _snapshot(self, function: Callable[[Transaction], T]) -> T:
        future: asyncio.Future[Any] = self._loop.create_future()
        self._group_reader.add(Read(function, future))
        result: T = await future
        return result

    def _make(self, group: Sequence[Read]) -> None:
        """Makes a group of reads; one that breaks their transaction lets each of the others have one of its own."""
        try:
            ride_out(lambda: self._share(group))
        except (Wan22Error, DBAPIError) as error:
            if len(group) > 1 and isinstance(error, DBAPIError):
                for read in group:
                    self._make([read])
                return
            for read in group:
                read.error = error
        self._loop.call_soon_threadsafe(_settle_all, group)

    def _share(self, group: Sequence[Read]) -> None:
        with self._read_engine.begin() as connection:
            transaction = Transaction(connection, lambda: clock(connection), self._memory, _Snapshot(connection))
            for read in group:
                read.result = read.error = None
                try:
                    read.result = read.function(transaction)
                except DBAPIError:
                    raise
                except Exception as error:  # noqa: BLE001  # handed to the caller, whose read alone it ends
                    read.error = error

    def _commit(self, group: Sequence[Write]) -> None:
        self._commit_group(group, LOCK)

    def _commit_own(self, group: Sequence[Write]) -> None:
        self._commit_group(group, None)

    def _commit_group(self, group: Sequence[Write], lock: str | None) -> None:
        commit = _Commit(self._writers, self._name, lock, group)
        try:
            ride_out(commit.run)
        except (Wan22Error, DBAPIError) as error:
            fail_group(group, error if isinstance(error, Wan22Error) else explain(error))
            commit.topics = set()
        self._tell(group, commit.topics)
        if lock is not None and time.monotonic() - self._swept > KEPT_SECONDS / 10:
            self._swept = time.monotonic()
            self._sweep()

    def _sweep(self) -> None:
        try:
            with self._writers.begin() as connection:
                connection.execute(delete(commits).where(commits.c.time < clock(connection) - KEPT_SECONDS * 1_000_000))
        except DBAPIError as error:
            log.info("Old commits stay for now: %s", explain(error).message)

    def _heard(self, topics: set[str] | None) -> None:
        """Wakes who listens to the topics; everybody for None, when notifications may have been missed."""
        if topics is None:
            self._memory.clear()
        self._loop.call_soon_threadsafe(lambda: self._wake(set(self._listeners) if topics is None else topics))


def _settle_all(group: Sequence[Read]) -> None:
    for read in group:
        read.settle()


class _Commit:
    """One group of writes on its way into the database; running it again does nothing twice."""

    def __init__(self, engine: Engine, sender: str, lock: str | None, group: Sequence[Write]) -> None:
        self._engine = engine
        self._sender = sender
        self._lock = lock
        self._group = group
        self._id = secrets.token_hex(16)
        self._in_doubt = False
        self.topics: set[str] = set()

    def run(self) -> None:
        """Commits, unless an earlier run did. Raises DBAPIError."""
        if self._in_doubt and self._is_committed():
            return
        self._in_doubt = False
        with self._engine.connect() as connection, connection.begin() as transaction:
            if self._lock is not None:
                connection.execute(text(self._lock))
            base, began = clock(connection), time.monotonic()

            def now() -> int:
                return base + round((time.monotonic() - began) * 1_000_000)

            self.topics = run_group(connection, self._group, lambda: Transaction(connection, now))
            announce(connection, self._sender, self.topics)
            self._record(connection, base)
            self._in_doubt = True
            transaction.commit()
        self._in_doubt = False

    def _record(self, connection: Connection, now: int) -> None:
        values = {"id": self._id, "time": now, "is_topical": bool(self.topics & TOPICS)}
        xid = text("pg_current_xact_id()::text::bigint")
        connection.execute(insert(commits).values(**values, transaction_number=xid))

    def _is_committed(self) -> bool:
        with self._engine.connect() as connection, connection.begin() as transaction:
            values = {"id": self._id, "time": 0, "is_topical": False, "transaction_number": 0}
            again = insert(commits).values(values).on_conflict_do_nothing().returning(commits.c.id)
            found = connection.execute(again).one_or_none() is None
            transaction.rollback()
        if found:
            log.warning("A commit was answered by a broken connection: it had taken place.")
        return found


class _Snapshot:
    """A `History` by the snapshots of reads: which commits one sees that another one did not see."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def position(self, topic: str) -> str:  # noqa: ARG002  # there is one topic
        return str(self._connection.execute(text("SELECT pg_current_snapshot()::text")).scalar_one())

    def changed(self, topic: str, since: str, age: float) -> bool:  # noqa: ARG002
        unseen = (
            "SELECT EXISTS (SELECT FROM commits WHERE is_topical"
            " AND transaction_number >= pg_snapshot_xmin(CAST(:since AS pg_snapshot))::text::bigint"
            " AND NOT pg_visible_in_snapshot(transaction_number::text::xid8, CAST(:since AS pg_snapshot)))"
        )
        return age > KEPT_SECONDS / 2 or bool(self._connection.execute(text(unseen), {"since": since}).scalar_one())


async def open_postgres(url: str, password_file: Path | None) -> PostgresDatabase:
    """Opens a database once its schema is one that this version serves.

    Raises FailedPrecondition (STORE_TOO_OLD) when nobody has migrated it within MIGRATION_SECONDS, (STORE_TOO_NEW) when
    it is more than one version ahead.
    """
    connections = Connections(url, password_file)
    engine = connections.engine(1)

    def look() -> bool:
        with engine.connect() as connection:
            return migrate.is_current(connection)

    try:
        deadline, told = time.monotonic() + MIGRATION_SECONDS, False
        while not await asyncio.to_thread(ride_out, look):
            text_ = f"The store lacks migrations to schema {migrate.newest()}: run `python -m wan22_gateway.migrate`."
            if time.monotonic() > deadline:
                raise FailedPrecondition(text_, reason=Reason.STORE_TOO_OLD)
            if not told:
                log.warning("%s Waiting for that.", text_)
                told = True
            await asyncio.sleep(1.0)
    finally:
        engine.dispose()
    database = PostgresDatabase(connections)
    await database.until_it_listens()
    return database


def migrate_postgres(url: str, password_file: Path | None, scripts: Path = migrate.SCRIPTS) -> str:
    """Brings a database to the newest schema of the scripts, while others use it; returns the number that it has.

    Raises FailedPrecondition (STORE_TOO_NEW), Unavailable.
    """
    engine = Connections(url, password_file).engine(1, MIGRATING)
    try:
        return ride_out(lambda: migrate.upgrade(engine, scripts))
    finally:
        engine.dispose()
