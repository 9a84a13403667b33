"""Who does not answer is not asked again for a while: each try takes time, and the rounds of all pools wait for it."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from wan22.errors import DeadlineExceeded, Unavailable, Wan22Error

T = TypeVar("T")


class Silence:
    """Remembers for so many seconds who did not answer, and what was the matter then."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._silent: dict[str, tuple[float, Wan22Error]] = {}

    async def ask(self, whom: str, call: Callable[[], Awaitable[T]]) -> T:
        """What the call answers. Raises what it raises; Unavailable and DeadlineExceeded for a while without a call."""
        since, error = self._silent.get(whom, (0.0, None))
        if error is not None and time.monotonic() - since < self._seconds:
            raise error.with_traceback(None)
        try:
            answer = await call()
        except (Unavailable, DeadlineExceeded) as failure:
            self._silent[whom] = (time.monotonic(), failure)
            raise
        self._silent.pop(whom, None)
        return answer
