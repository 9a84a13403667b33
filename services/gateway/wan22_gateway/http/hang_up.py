"""Work for a caller who may hang up, on a server that may stop."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.types import Receive

T = TypeVar("T")


class HungUp(Exception):
    """The caller has closed its connection."""


class Stopping(Exception):
    """The server stops."""


async def until_hung_up(receive: Receive) -> None:
    """Returns when the caller has closed its connection; its request's body has been read."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def while_connected(work: Coroutine[Any, Any, T], receive: Receive, stopping: asyncio.Event) -> T:
    """What the work returns; it is cancelled when the caller hangs up (HungUp) or the server stops (Stopping)."""
    doing = asyncio.create_task(work)
    gone = asyncio.create_task(until_hung_up(receive))
    stop = asyncio.create_task(stopping.wait())
    tasks: list[asyncio.Task[Any]] = [doing, gone, stop]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if doing.done():
            return doing.result()
        raise Stopping if stop.done() else HungUp
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
