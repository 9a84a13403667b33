"""Requests at a fixed rate over connections that stay open, by a client that takes little time itself.

What is timed is the server: httpx computes for 3 ms a request, and is itself late at 200 a second.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass(frozen=True, slots=True)
class Taken:
    """One request's times, seconds."""

    since_due: float
    """Until its answer was whole: one that had to wait for its start counts whole."""
    late: float
    """Until it was sent: the client's own part, connecting included."""


class Load:
    """GET requests of one server; use as an async context manager."""

    def __init__(self, port: int, headers: Mapping[str, str]) -> None:
        self._port = port
        self._fields = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self._idle: list[Connection] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        for _, writer in self._idle:
            writer.close()

    async def run(self, path: str, rate: int, seconds: float) -> list[Taken]:
        """So many requests a second, each begun when it is due whatever became of those before it."""
        taken: list[Taken] = []

        async def one(due: float) -> None:
            sent = await self._get(path)
            taken.append(Taken(time.perf_counter() - due, sent - due))

        began = time.perf_counter()
        async with asyncio.TaskGroup() as requests:
            for number in range(round(seconds * rate)):
                due = began + number / rate
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
                requests.create_task(one(due))
        return taken

    async def _get(self, path: str) -> float:
        """Reads a whole answer and returns when it was asked for. Raises RuntimeError unless it is 200."""
        kept = self._idle.pop() if self._idle else None
        reader, writer = kept or await asyncio.open_connection("127.0.0.1", self._port)
        sent = time.perf_counter()
        writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{self._fields}\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200 "):
            raise RuntimeError(f"{path}: {head.splitlines()[0].decode()}")
        (length,) = (int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        await reader.readexactly(length)
        self._idle.append((reader, writer))
        return sent
