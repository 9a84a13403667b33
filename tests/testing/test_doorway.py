from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from wan22_testing.nodes.doorway import Doorway
from wan22_testing.service_process import free_port


@asynccontextmanager
async def door_to(host: str, port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection through a doorway."""
    listening = socket.create_server(("127.0.0.1", 0))
    address = listening.getsockname()
    doorway = asyncio.create_task(Doorway(listening, host, port).run())
    reader, writer = await asyncio.open_connection(*address)
    try:
        async with asyncio.timeout(60):
            yield reader, writer
    finally:
        writer.close()
        await writer.wait_closed()
        doorway.cancel()
        with suppress(asyncio.CancelledError):
            await doorway


async def test_what_is_said_at_the_door_is_answered_from_behind_it() -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.read())
        writer.close()
        await writer.wait_closed()

    async with (
        await asyncio.start_server(echo, "127.0.0.1", 0) as behind,
        door_to(*behind.sockets[0].getsockname()) as (reader, writer),
    ):
        said = b"x" * 200_000
        writer.write(said)
        writer.write_eof()
        assert await reader.read() == said


async def test_where_nobody_answers_the_caller_is_let_go() -> None:
    async with door_to("127.0.0.1", free_port()) as (reader, _):
        assert await reader.read() == b""
