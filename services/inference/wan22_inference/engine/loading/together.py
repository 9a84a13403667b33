"""Threads that carry out one load together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor


def run_together(jobs: Sequence[Callable[[], object]], close: Callable[[], object]) -> None:
    """Runs each in a thread of its own, and returns when all have ended.

    Raises what one of them raises; `close` is called at once then, and has to end the others.
    """

    def run(job: Callable[[], object]) -> None:
        try:
            job()
        except BaseException:
            close()
            raise

    with ThreadPoolExecutor(len(jobs), "load") as pool:
        try:
            futures = [pool.submit(run, job) for job in jobs]
        except BaseException:  # no more threads here: those that run would wait for the others
            close()
            raise
    for future in futures:
        future.result()
