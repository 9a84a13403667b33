"""What kopf says of its watches, made readable: one warning a stretch without the API server, one line a 410."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

QUIET_SECONDS = 90.0
"""A failure after so long without one, which is longer than kopf waits between tries, begins a new stretch."""
WATCHES = "kopf._cogs.clients.watching"
FAILED, EXPIRED = "Request attempt", "Restarting the watch-stream for "


class WatchLog(logging.Filter):
    """Lets through what is news of kopf's records, and all others as they are; for handlers, as kopf has many loggers.

    Kopf logs each failed try of each watch as an error, up to a hundred a minute, and an expired history (which is no
    fault, and answered by listing anew) for debugging alone.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._last_failure: float | None = None

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a record is to be written; it may be changed."""
        if not record.name.startswith("kopf."):
            return True
        text = record.getMessage()
        if record.levelno == logging.ERROR and text.startswith(FAILED):
            return self._failed(record, text)
        if record.name == WATCHES and text.startswith(EXPIRED):
            _say(
                record, logging.INFO, f"The watch history of {text.removeprefix(EXPIRED)[:-1]} expired (410): listing."
            )
            return True
        return record.levelno > logging.DEBUG

    def _failed(self, record: logging.LogRecord, text: str) -> bool:
        now = self._clock()
        goes_on = self._last_failure is not None and now - self._last_failure < QUIET_SECONDS
        self._last_failure = now
        if goes_on:
            return False
        why = text.partition(" -> ")[2] or text
        _say(record, logging.WARNING, f"Watches are lost, and opened anew until the API server answers: {why}")
        return True


def _say(record: logging.LogRecord, level: int, text: str) -> None:
    record.levelno, record.levelname = level, logging.getLevelName(level)
    record.msg, record.args = text, None
    record.exc_info = record.exc_text = None


def read_watches() -> None:
    """Has every handler of the process look at kopf's records in this way."""
    logging.getLogger(WATCHES).setLevel(logging.DEBUG)
    said = WatchLog()
    for handler in logging.getLogger().handlers:
        handler.addFilter(said)
