"""A TCP proxy whose connections break when a test wants them to."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Self

PIECE_BYTES = 1 << 16
_End = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class CuttingProxy:
    """Passes bytes on to a port of this machine; use as an async context manager.

    `cuts` has, for each of the next connections, after how many bytes from the client, or to it, it breaks; `cut`
    breaks all that are open; `silence` leaves some open, and passes nothing more on. `heard` is told the size in bytes
    of each piece that a client has sent.
    """

    def __init__(self, target_port: int, cuts: list[int], heard: Callable[[int], None] = lambda _: None) -> None:
        self._target_port = target_port
        self.cuts = deque(cuts)
        self._heard = heard
        self._ends: set[asyncio.StreamWriter] = set()
        self._lines: set[_Line] = set()
        self._served: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._served:
            task.cancel()
        await asyncio.gather(*self._served, return_exceptions=True)

    def cut(self) -> None:
        """Breaks every connection that is open now."""
        for end in list(self._ends):
            end.transport.abort()

    def silence(self, quiet_seconds: float) -> int:
        """Half-opens the connections whose clients have said nothing for so long; returns how many these are."""
        quiet = [line for line in self._lines if time.monotonic() - line.heard >= quiet_seconds]
        for line in quiet:
            line.silent = True
        return len(quiet)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._served.add(task)
        task.add_done_callback(self._served.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        limit = self.cuts.popleft() if self.cuts else None
        try:
            to_reader, to_writer = await asyncio.open_connection("127.0.0.1", self._target_port)
            try:
                # TCP lets a connection to a free port meet itself, and would keep the port
                if to_writer.get_extra_info("sockname") != to_writer.get_extra_info("peername"):
                    await self._pass_both((reader, writer), (to_reader, to_writer), limit)
            finally:
                to_writer.transport.abort()
        except ConnectionError:
            pass  # nobody listens there now
        finally:
            writer.transport.abort()

    async def _pass_both(self, client: _End, server: _End, limit: int | None) -> None:
        line, ends = _Line(self._heard), {client[1], server[1]}
        self._ends |= ends
        self._lines.add(line)
        ways = [
            asyncio.create_task(_pass(client[0], server[1], limit, line, heard=True)),
            asyncio.create_task(_pass(server[0], client[1], limit, line, heard=False)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            self._lines.discard(line)
            self._ends -= ends


class _Line:
    """One connection."""

    def __init__(self, told: Callable[[int], None]) -> None:
        self._told = told
        self.heard = time.monotonic()
        """When its client said something last."""
        self.silent = False

    def hear(self, size: int) -> None:
        self.heard = time.monotonic()
        self._told(size)


async def _pass(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, limit: int | None, line: _Line, *, heard: bool
) -> None:
    """Returns at the end of the bytes, or after the limit."""
    passed = 0
    with suppress(ConnectionError):
        while data := await reader.read(PIECE_BYTES if limit is None else min(PIECE_BYTES, limit - passed)):
            if heard:
                line.hear(len(data))
            if line.silent:
                continue
            writer.write(data)
            await writer.drain()
            passed += len(data)
            if passed == limit:
                return
