"""A connection that breaks at the commit: whether it took place is looked up, so that nothing is lost or done twice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest
from sqlalchemy import select

from wan22_gateway.store.database import Database, Transaction
from wan22_gateway.store.opening import open_store
from wan22_gateway.store.schema import generations
from wan22_testing.postgres import PostgresServer

from . import rows


class CommitCutter:
    """Passes bytes on to a server; the next COMMIT breaks its connection, before or after the server has it."""

    def __init__(self, port: int) -> None:
        self._target = port
        self.armed = ""
        self.cuts = 0
        self.open: set[asyncio.Task[None]] = set()

    def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open.add(asyncio.create_task(self._serve(reader, writer)))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self._target)
        answers = asyncio.create_task(self._pass_answers(server_reader, writer))
        try:
            with suppress(ConnectionError):
                while data := await reader.read(1 << 16):
                    if self.armed and b"COMMIT" in data:
                        when, self.armed = self.armed, ""
                        self.cuts += 1
                        answers.cancel()
                        await asyncio.wait([answers])
                        if when == "after":
                            server_writer.write(data)
                            await server_reader.read(1)  # it has answered: it is done
                        break
                    server_writer.write(data)
        finally:  # also when it is cancelled, as one is that came at the end
            answers.cancel()
            for end in (writer, server_writer):
                end.transport.abort()

    async def _pass_answers(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(1 << 16):
                writer.write(data)
        writer.transport.abort()


@pytest.fixture
async def cutter(postgres: PostgresServer) -> AsyncIterator[tuple[CommitCutter, int]]:
    passing = CommitCutter(postgres.port)
    server = await asyncio.start_server(passing.serve, "127.0.0.1", 0)
    yield passing, server.sockets[0].getsockname()[1]
    server.close()
    await asyncio.wait(passing.open)


@pytest.fixture
async def store(
    postgres: PostgresServer, postgres_store: str, cutter: tuple[CommitCutter, int], tmp_path: Path
) -> AsyncIterator[Database]:
    password = tmp_path / "password"
    password.write_text(postgres.password)
    database = postgres_store.rpartition("/")[2].partition("?")[0]
    opened = await open_store(f"postgresql://wan22@127.0.0.1:{cutter[1]}/{database}", password)
    yield opened
    await opened.close()


def all_ids(tx: Transaction) -> list[str]:
    return list(tx.execute(select(generations.c.id).order_by(generations.c.position)).scalars())


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_write_takes_place_once_wherever_its_connection_breaks(
    store: Database, cutter: tuple[CommitCutter, int], when: str
) -> None:
    runs = 0

    def create(tx: Transaction) -> str:
        nonlocal runs
        runs += 1
        return rows.add_generation(tx)

    await store.write(rows.add_pool)
    cutter[0].armed = when
    made = await store.write(create)
    assert cutter[0].cuts == 1
    assert runs == (2 if when == "before" else 1)
    assert await store.read(all_ids) == [made]
    again = await store.write(create)
    assert await store.read(all_ids) == [made, again]


async def test_a_group_is_answered_whole_after_a_commit_in_doubt(
    store: Database, cutter: tuple[CommitCutter, int]
) -> None:
    await store.write(rows.add_pool)
    cutter[0].armed = "after"
    made = await asyncio.gather(*(store.write(rows.add_generation) for _ in range(20)))
    assert cutter[0].cuts == 1
    assert sorted(await store.read(all_ids)) == sorted(made)
