"""Calls over TLS that are cancelled at every moment, for tests of clients."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from wan22_testing.authority import Authority

STEPS = 80
"""Turns of the event loop, more than a call takes until it has a connection."""
C = TypeVar("C")


@asynccontextmanager
async def answering_server(folder: Path) -> AsyncIterator[tuple[str, Path]]:
    """One that answers every request with an empty object; yields its address and the certificate to trust."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}")
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.transport.abort()

    authority = Authority(folder)
    authority.issue("server")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(folder / "server.pem", folder / "server.key")
    async with await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context) as server:
        yield f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}", authority.ca


async def cancel_everywhere(
    open_client: Callable[[], AbstractAsyncContextManager[C]], ask: Callable[[C], Coroutine[Any, Any, object]]
) -> int:
    """Makes STEPS calls, each cancelled a turn later than the one before; returns how many were.

    Waits after each until no connection is left: the server closes its end a moment later.
    """
    async with open_client() as client:
        await ask(client)
    before = open_files()
    cancelled = 0
    for steps in range(STEPS):
        async with open_client() as client:
            asking = asyncio.create_task(ask(client))
            for _ in range(steps):
                await asyncio.sleep(0)
            asking.cancel()
            with suppress(asyncio.CancelledError):
                await asking
            cancelled += asking.cancelled()
        await until_open(before)
    return cancelled


async def until_open(count: int) -> None:
    """Returns when this process has no more than so many files open."""
    while open_files() > count:  # noqa: ASYNC110  # nothing tells of it
        await asyncio.sleep(0.01)


def open_files() -> int:
    """How many files, sockets among them, this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))
