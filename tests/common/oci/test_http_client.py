"""Calls to other registries that are given up."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest

from wan22.oci.reference import OciReference
from wan22.oci.registry import OciRegistry
from wan22_testing.authority import Authority

STEPS = 80
"""Turns of the event loop, more than a call takes until it has a connection."""
DIGEST = "sha256:" + "a" * 64


@pytest.fixture
async def port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[int]:
    """Of a registry that has every blob, over TLS, and its certificates are trusted."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.transport.abort()

    authority = Authority(tmp_path)
    authority.issue("registry")
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.ca))
    monkeypatch.setattr(OciReference, "is_local", False)  # else it would be asked without TLS
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tmp_path / "registry.pem", tmp_path / "registry.key")
    async with await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context) as server:
        yield server.sockets[0].getsockname()[1]


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def read(registry: OciRegistry) -> bytes:
    return b"".join([data async for data in registry.read_blob(DIGEST)])


async def test_a_call_that_is_cancelled_anywhere_ends_and_leaves_no_connection(port: int) -> None:
    reference = OciReference.parse(f"oci://127.0.0.1:{port}/m")
    cancelled = 0
    async with asyncio.timeout(60):
        async with OciRegistry(reference) as registry:
            assert await read(registry) == b"{}"
        before = open_files()
        for steps in range(STEPS):
            async with OciRegistry(reference) as registry:
                reading = asyncio.create_task(read(registry))
                for _ in range(steps):
                    await asyncio.sleep(0)
                reading.cancel()
                with suppress(asyncio.CancelledError):
                    await reading
                cancelled += reading.cancelled()
            while open_files() > before:  # noqa: ASYNC110  # the server closes its ends a moment later
                await asyncio.sleep(0.01)
    assert 10 < cancelled <= STEPS
