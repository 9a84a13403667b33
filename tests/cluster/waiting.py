"""Waiting for what a cluster comes to by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any


def patience(usual: float) -> Callable[..., Awaitable[Any]]:
    """A way to wait: `until(find, good, seconds)` returns what is found, once it is good; `usual` where not said."""

    async def until(find: Callable[[], Any], good: Callable[[Any], bool], seconds: float = usual) -> Any:
        found = None
        try:
            async with asyncio.timeout(seconds):
                while True:
                    found = await asyncio.to_thread(find)
                    if good(found):
                        return found
                    await asyncio.sleep(0.1)
        except TimeoutError:
            raise AssertionError(f"after {seconds} s it is {found}") from None

    return until
