"""Calls that are given up."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from wan22.http_client import HttpClient
from wan22_testing.authority import Authority

Ask = Callable[[HttpClient, str], Coroutine[Any, Any, bytes]]
STEPS = 80
"""Turns of the event loop, more than a call takes until it has a connection."""


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
async def server(tmp_path: Path, authority: Authority) -> AsyncIterator[str]:
    """The address of one that answers every request over TLS."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.transport.abort()

    authority.issue("server")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tmp_path / "server.pem", tmp_path / "server.key")
    async with await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context) as listening:
        yield f"https://127.0.0.1:{listening.sockets[0].getsockname()[1]}/"


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def read(client: HttpClient, address: str) -> bytes:
    return (await client.get(address)).content


async def read_in_parts(client: HttpClient, address: str) -> bytes:
    async with client.stream("GET", address) as answer:
        return b"".join([part async for part in answer.aiter_bytes()])


@pytest.mark.parametrize("ask", [read, read_in_parts])
async def test_a_call_that_is_cancelled_anywhere_ends_and_leaves_no_connection(
    server: str, authority: Authority, ask: Ask
) -> None:
    """What it left open would be told as another test's fault."""
    trusted = ssl.create_default_context(cafile=authority.ca)
    cancelled = 0
    async with asyncio.timeout(60):
        async with HttpClient(verify=trusted) as client:
            assert await ask(client, server) == b"{}"
        before = open_files()
        for steps in range(STEPS):
            async with HttpClient(verify=trusted) as client:
                asking = asyncio.create_task(ask(client, server))
                for _ in range(steps):
                    await asyncio.sleep(0)
                asking.cancel()
                with suppress(asyncio.CancelledError):
                    await asking
                cancelled += asking.cancelled()
            while open_files() > before:  # noqa: ASYNC110  # the server closes its ends a moment later
                await asyncio.sleep(0.01)
    assert 0 < cancelled < STEPS, "all steps of a call are to be seen, until it is through"
