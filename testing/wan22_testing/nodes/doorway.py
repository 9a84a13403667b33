"""A way from one network into another: a port here that leads to one there."""

from __future__ import annotations

import asyncio
import socket
from contextlib import closing, suppress

CHUNK_BYTES = 1 << 16


class Doorway:
    """Passes connections on from a listening socket, which keeps the network namespace that it was made in."""

    def __init__(self, listening: socket.socket, host: str, port: int) -> None:
        self._listening = listening
        self._host = host
        self._port = port

    async def run(self) -> None:
        """Passes on for ever."""
        server = await asyncio.start_server(self._pass_on, sock=self._listening)
        async with server:
            await server.serve_forever()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, back = await asyncio.open_connection(self._host, self._port)
        except OSError:  # it is not up: the caller sees a closed connection
            writer.close()
            return
        with closing(writer), closing(back):
            await asyncio.gather(_copy(reader, back), _copy(there, writer))


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):  # one side is gone, and so the other is let go
        while chunk := await reader.read(CHUNK_BYTES):
            writer.write(chunk)
            await writer.drain()
        writer.write_eof()
