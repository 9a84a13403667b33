"""The one thread that runs torch, so that the event loop never does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
R = TypeVar("R")


class Compute:
    """Runs functions one after the other in a thread of its own."""

    def __init__(self, threads: int) -> None:
        self._executor = ThreadPoolExecutor(1, "compute", initializer=torch.set_num_threads, initargs=(threads,))

    async def run(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """The function's result; it waits for those before it."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._executor, lambda: function(*args, **kwargs))

    async def close(self) -> None:
        """Waits for what runs, and ends the thread."""
        await asyncio.to_thread(self._executor.shutdown, wait=True, cancel_futures=True)
