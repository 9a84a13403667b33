"""Work in threads whose results come in order, with few of them in memory at a time."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
AHEAD = 2
"""Results that may wait beside those being made."""
MOST_THREADS = 16
"""They pack and unpack what a disk of 4 GB/s takes. Each more costs an extent's fresh memory, which takes a core longer
than to pack as much, and waits with the others for Python's lock."""


def in_order(
    function: Callable[[Item], Result], items: Iterable[Item], most_threads: int = MOST_THREADS
) -> Generator[Result, None, None]:
    """Yields `function` of each item, made by a thread a core, up to `most_threads`; as many and AHEAD are held."""
    threads = min(most_threads, len(os.sched_getaffinity(0)))
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="pack") as pool:
        try:
            for item in items:
                if len(waiting) >= threads + AHEAD:
                    yield waiting.popleft().result()
                waiting.append(pool.submit(function, item))
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
