from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from wan22_testing.authority import Authority
from wan22_testing.cluster.api import Api

STEPS = 80
"""Turns of the event loop, more than a call takes until it has a connection."""


@asynccontextmanager
async def api_server(folder: Path) -> AsyncIterator[Path]:
    """One that answers every request with an empty object; yields a kubeconfig."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}")
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.transport.abort()

    authority = Authority(folder)
    authority.issue("api")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(folder / "api.pem", folder / "api.key")
    async with await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context) as server:
        cluster = {
            "server": f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}",
            "certificate-authority": str(authority.ca),
        }
        config = folder / "kubeconfig"
        config.write_text(json.dumps({"clusters": [{"cluster": cluster}], "users": [{"user": {"token": "x"}}]}))
        yield config


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_a_call_that_is_cancelled_anywhere_leaves_no_connection(tmp_path: Path) -> None:
    """A killed node's calls are cancelled, and what they left open would be told as another test's fault."""
    async with api_server(tmp_path) as config, asyncio.timeout(120):
        async with Api(config) as api:
            await api.get("/a")
        before = open_files()
        for steps in range(STEPS):
            for path in ("/a", "/b"):
                async with Api(config) as api:
                    call = api.get(path) if path == "/a" else anext(api.watch(path, "1"))
                    asking = asyncio.ensure_future(call)
                    for _ in range(steps):
                        await asyncio.sleep(0)
                    asking.cancel()
                    with suppress(asyncio.CancelledError):
                        await asking
        while True:  # the server closes its ends a moment later
            if open_files() <= before:
                break
            await asyncio.sleep(0.01)
