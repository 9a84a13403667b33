from __future__ import annotations

import threading

import pytest

from wan22_inference.engine.loading.together import run_together


def test_what_one_raises_ends_the_others_and_is_raised() -> None:
    closed, ended = threading.Event(), list[bool]()

    def wait() -> None:
        ended.append(closed.wait(60))

    def fail() -> None:
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        run_together([wait, fail, wait], closed.set)
    assert ended == [True, True]


def test_a_machine_without_more_threads_ends_those_that_run(monkeypatch: pytest.MonkeyPatch) -> None:
    closed, ended, start = threading.Event(), list[bool](), threading.Thread.start

    def start_one(thread: threading.Thread) -> None:
        if any(other.name.startswith("load") for other in threading.enumerate()):
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_one)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        run_together([lambda: ended.append(closed.wait(60)), lambda: None], closed.set)
    assert ended == [True]


def test_all_is_done_when_it_returns() -> None:
    done: list[int] = []
    run_together([lambda: done.append(1), lambda: done.append(2)], done.clear)
    assert sorted(done) == [1, 2]
