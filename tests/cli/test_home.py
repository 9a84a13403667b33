import fcntl
import json
import threading
from pathlib import Path

import pytest

from wan22.errors import FailedPrecondition
from wan22_cli.home import Home, Running, RunningProcess

RUNNING = Running(7, "127.0.0.1:1", "127.0.0.1:2", ("ti2v-5b",), (RunningProcess("gateway", 8, 1, 1001),))


def test_what_up_says_is_read_while_it_runs_and_not_after(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    assert home.running() is None
    with home.own():
        assert home.running() is None  # it has just begun
        home.describe(RUNNING)
        assert home.running() == RUNNING
        assert json.loads((home.path / "up.json").read_text())["processes"][0]["pid"] == 8
    assert home.running() is None
    assert [path.name for path in home.path.iterdir()] == ["up.lock"]


def test_what_a_killed_up_left_is_not_believed(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.describe(RUNNING)
    (tmp_path / "up.lock").write_text("7\n")
    assert home.running() is None


def test_a_second_owner_is_refused_naming_the_first(tmp_path: Path) -> None:
    with Home(tmp_path).own():
        holder = (tmp_path / "up.lock").read_text().strip()
        with pytest.raises(FailedPrecondition, match=f"process id {holder}: stop that one"), Home(tmp_path).own():
            pass


def test_a_command_that_looks_at_that_moment_does_not_stop_up(tmp_path: Path) -> None:
    with (tmp_path / "up.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        unlock = threading.Timer(0.1, fcntl.flock, (lock, fcntl.LOCK_UN))
        unlock.start()
        with Home(tmp_path).own():
            unlock.join()
