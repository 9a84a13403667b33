"""Has a stranger's image decoded by a process of its own, which may take so much and no more, and is not trusted."""

from __future__ import annotations

import asyncio
import os
import struct
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from wan22.confinement import REFUSED
from wan22.errors import InvalidRequest, Reason

INHERITED = frozenset({"LD_LIBRARY_PATH", "PYTHONHOME", "PYTHONPATH"})
"""All that the decoder gets of the gateway's environment: what it needs to start, and no password."""
SIGNATURE = b"\x89PNG\r\n\x1a\n"
WORDS_BYTES = 1_000
READ_BYTES = 1 << 20


@dataclass(frozen=True)
class DecoderLimits:
    """What one image may take."""

    seconds: float = 30.0
    processor_seconds: int = 20
    memory_bytes: int = 768 << 20
    """Of address space: enough for 40 million pixels in each format, and so little that two fit beside a gateway."""
    pixels: int = 40_000_000

    @property
    def png_bytes(self) -> int:
        """More than a PNG of so many pixels takes, even if it is one pixel wide and nothing can be compressed."""
        return 4 * self.pixels + (1 << 20)


def decoder(limits: DecoderLimits) -> Sequence[str]:
    """The command that decodes standard input."""
    numbers = (limits.memory_bytes, limits.processor_seconds, limits.pixels)
    return [sys.executable, "-m", "wan22_gateway.media_normalizer", *map(str, numbers)]


async def decode(data: bytes, limits: DecoderLimits, command: Sequence[str]) -> tuple[bytes, int, int]:
    """The image as an RGB PNG, its width and height. Raises InvalidRequest (MEDIA_UNREADABLE), saying what is wrong."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={name: os.environ[name] for name in INHERITED & os.environ.keys()},
    )
    if process.stdin is None or process.stdout is None or process.stderr is None:
        raise RuntimeError("a process was made without the pipes that it was to have")
    try:
        async with asyncio.timeout(limits.seconds), asyncio.TaskGroup() as group:
            group.create_task(_feed(process.stdin, data))
            taking = group.create_task(_take(process, process.stdout, limits.png_bytes))
            words = await _take(process, process.stderr, WORDS_BYTES)
            png = await taking
            state = await process.wait()
    except TimeoutError:
        raise _refusal("it takes too long to decode") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if state == REFUSED:
        raise _refusal(words.decode(errors="replace").strip())
    if state != 0:
        raise _refusal("decoding it broke the decoder or its limits")
    return png, *_size(png, limits)


async def _feed(pipe: asyncio.StreamWriter, data: bytes) -> None:
    if pipe.is_closing():
        return  # it has ended already, which uvloop has a RuntimeError for
    try:
        pipe.write(data)
        await pipe.drain()
        pipe.close()
        await pipe.wait_closed()
    except (BrokenPipeError, ConnectionResetError):
        pass  # it has ended, and says why


async def _take(process: asyncio.subprocess.Process, pipe: asyncio.StreamReader, most: int) -> bytes:
    """All that comes, to its end. A process that says more than `most` bytes is killed."""
    taken = bytearray()
    while chunk := await pipe.read(READ_BYTES):
        taken += chunk
        if len(taken) > most:
            taken.clear()
            if process.returncode is None:
                process.kill()
    return bytes(taken)


def _size(png: bytes, limits: DecoderLimits) -> tuple[int, int]:
    if len(png) < 24 or not png.startswith(SIGNATURE):
        raise _refusal("decoding it broke the decoder")
    width, height = struct.unpack(">II", png[16:24])  # of the IHDR chunk, which comes first
    if not 0 < width * height <= limits.pixels:
        raise _refusal("decoding it broke the decoder")
    return width, height


def _refusal(why: str) -> InvalidRequest:
    return InvalidRequest(f"The image was refused: {why}.", field="data", reason=Reason.MEDIA_UNREADABLE)
