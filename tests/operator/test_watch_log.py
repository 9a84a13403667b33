from __future__ import annotations

import logging

from wan22_operator.watch_log import QUIET_SECONDS, WatchLog

WATCHES = "kopf._cogs.clients.watching"
FAILED = "Request attempt #1/9 failed; will retry: GET https://api/pods -> ClientConnectorError('refused')"


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def record(text: str, level: int = logging.ERROR, name: str = WATCHES) -> logging.LogRecord:
    return logging.LogRecord(name, level, "file.py", 1, text, (), None)


def test_a_stretch_of_failures_is_one_warning_and_the_next_stretch_another() -> None:
    clock = Clock()
    said = WatchLog(clock)
    first = record(FAILED)
    assert said.filter(first)
    assert (first.levelname, first.getMessage()) == (
        "WARNING",
        "Watches are lost, and opened anew until the API server answers: ClientConnectorError('refused')",
    )
    for _ in range(50):
        clock.now += QUIET_SECONDS - 1
        assert not said.filter(record(FAILED))
    clock.now += QUIET_SECONDS
    assert said.filter(record(FAILED))


def test_an_expired_history_is_said_once_it_is_listed_anew() -> None:
    one = record("Restarting the watch-stream for pods.v1 in 'videos'.", logging.DEBUG)
    assert WatchLog().filter(one)
    assert one.levelname == "INFO"
    assert one.getMessage() == "The watch history of pods.v1 in 'videos' expired (410): listing."


def test_all_else_is_as_it_was() -> None:
    said = WatchLog()
    assert not said.filter(record("Starting the watch-stream for pods.", logging.DEBUG))
    ours = record(FAILED, name="wan22_operator.pools")
    assert said.filter(ours)
    assert ours.levelno == logging.ERROR
    other = record("Something else broke.", name="kopf.objects")
    assert said.filter(other)
    assert other.levelno == logging.ERROR
