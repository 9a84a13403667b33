"""Which parts of a model are in memory: one thread loads them, another computes with them meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable

from wan22.errors import Reason, Unavailable, Wan22Error
from wan22_inference.engine.progress import ShouldStop, check_stop

LOOK_SECONDS = 0.1
"""Between looks whether whoever waits is to stop."""


class Arrivals:
    """What is awaited, by name; nothing by default, for a model that is whole."""

    def __init__(self, awaited: Iterable[str] = (), scratch_bytes: int = 0) -> None:
        self.scratch_bytes = scratch_bytes
        """Of the device, that loading takes beside the weights until all is here."""
        self._missing = set(awaited)
        self._changed = threading.Condition()
        self._failure: Unavailable | None = None
        self._listeners: list[Callable[[], None]] = []

    @property
    def failure(self) -> Unavailable | None:
        """Why what is missing will not come; no fault of the generation's."""
        return self._failure

    def has(self, name: str) -> bool:
        """Whether a part is whole by now."""
        return name not in self._missing

    def arrive(self, name: str) -> None:
        """A part is whole, and can be used by any thread."""
        with self._changed:
            self._missing.discard(name)
            self._changed.notify_all()

    def fail(self, error: Wan22Error) -> None:
        """Nothing more comes. Ends all waiting, now and later."""
        with self._changed:
            text = f"The worker could not load its model while it ran: {error.message}"
            self._failure = Unavailable(text, reason=Reason.WORKER_LOADING)
            self._changed.notify_all()
        for listener in self._listeners:
            listener()

    def on_failure(self, listener: Callable[[], None]) -> None:
        """Calls it when loading fails, or now if it has; in any thread, and perhaps twice."""
        self._listeners.append(listener)
        if self._failure is not None:
            listener()

    def wait(self, name: str, should_stop: ShouldStop) -> None:
        """Returns when the part is whole.

        Raises Unavailable (WORKER_LOADING) when it will not come, Cancelled soon after `should_stop`.
        """
        self._wait(lambda: name not in self._missing, should_stop)

    def wait_for_all(self, should_stop: ShouldStop) -> bool:
        """Returns when nothing is missing, and whether something was. Raises as `wait` does."""
        before = bool(self._missing)
        self._wait(lambda: not self._missing, should_stop)
        return before

    def _wait(self, whole: Callable[[], bool], should_stop: ShouldStop) -> None:
        with self._changed:
            while not whole():
                if self._failure is not None:
                    raise self._failure
                check_stop(should_stop)
                self._changed.wait(LOOK_SECONDS)
