"""Somebody who receives webhooks: a real HTTPS server, with a certificate of a test's authority."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from wan22.tls import Tls


@dataclass
class Received:
    """One request."""

    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Receiver:
    """Answers with the next of its answers, then always with 204."""

    answers: list[str] = field(default_factory=list)
    """Status lines with further headers, such as `503 Busy\\r\\nRetry-After: 7`; empty to say nothing."""
    body: bytes = b""
    received: list[Received] = field(default_factory=list)
    news: asyncio.Event = field(default_factory=asyncio.Event)
    port: int = 0
    go: asyncio.Event = field(default_factory=asyncio.Event)
    """While it is not set, requests wait for their answers."""

    def __post_init__(self) -> None:
        self.go.set()

    async def until(self, count: int) -> list[Received]:
        """Waits until so many requests have come."""
        async with asyncio.timeout(60):
            while len(self.received) < count:
                self.news.clear()
                await self.news.wait()
        return self.received

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Takes one request, and closes."""
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            headers = dict(line.split(": ", 1) for line in head[1:] if line)
            named = {name.lower(): value for name, value in headers.items()}
            body = await reader.readexactly(int(named.get("content-length", "0")))
            self.received.append(Received(head[0].split()[1], named, body))
            self.news.set()
            await self.go.wait()
            status = self.answers.pop(0) if self.answers else "204 No Content" if not self.body else "200 OK"
            if status:
                length = f"Content-Length: {len(self.body)}\r\nConnection: close\r\n\r\n"
                writer.write(f"HTTP/1.1 {status}\r\n{length}".encode() + self.body)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # a client that thought better of it
        finally:
            writer.close()


@asynccontextmanager
async def receiving(tls: Tls, *answers: str, body: bytes = b"") -> AsyncIterator[Receiver]:
    """Runs a receiver."""
    receiver = Receiver(list(answers), body)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    assert tls.cert is not None
    context.load_cert_chain(tls.cert, tls.key)
    server = await asyncio.start_server(receiver.answer, "127.0.0.1", 0, ssl=context)
    receiver.port = server.sockets[0].getsockname()[1]
    async with server:
        yield receiver
