"""Jobs that share cards, with commands that take no time."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from tools.card_jobs import Job, read_plan

ROOT = Path(__file__).parents[2]
UNTIL = "until [ -e {out}/%s ]; do sleep 0.05; done"
"""For a shell: waits for what another job makes."""


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    return tmp_path / "plan.toml"


def write(plan: Path, jobs: Mapping[str, Mapping[str, object]]) -> None:
    lines = (
        f"[[job]]\nname = {name!r}\n" + "".join(f"{key} = {of[key]!r}\n" for key in of) for name, of in jobs.items()
    )
    plan.write_text("\n".join(lines))


def command(plan: Path, *arguments: str, cards: str = "5") -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "tools.card_jobs", *arguments, "--out", str(plan.parent / "out")]
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": cards}
    return subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def ran(plan: Path, cards: str, *arguments: str) -> tuple[int, Sequence[str]]:
    """The exit code of a watch to the end, and what it has shown."""
    started = command(plan, "start", str(plan), *arguments, cards=cards)
    assert started.returncode == 0, started.stderr
    watched = command(plan, "watch", "--seconds", "60")
    return watched.returncode, watched.stdout.splitlines()


def test_as_many_run_at_once_as_there_are_cards_each_with_its_own(plan: Path) -> None:
    see = "echo $CUDA_VISIBLE_DEVICES > {out}/%s; " + UNTIL
    write(plan, {"one": {"command": see % ("one", "two")}, "two": {"command": see % ("two", "one")}})
    code, _ = ran(plan, "5,7")
    assert code == 0
    assert sorted((plan.parent / "out" / name).read_text() for name in ("one", "two")) == ["5\n", "7\n"]


def test_one_card_serves_one_at_a_time_in_the_order_of_the_plan(plan: Path) -> None:
    write(plan, {name: {"command": f"echo {name} >> {{out}}/order"} for name in ("c", "a", "b")})
    code, lines = ran(plan, "5")
    assert (code, (plan.parent / "out" / "order").read_text().split()) == (0, ["c", "a", "b"])
    assert sum("ended with 0 after" in line for line in lines) == 3


def test_a_job_with_several_cards_has_them_to_itself(plan: Path) -> None:
    write(
        plan,
        {"both": {"command": "echo $CUDA_VISIBLE_DEVICES", "cards": 2}, "more": {"command": "echo on", "cards": 9}},
    )
    _, lines = ran(plan, "5,7")
    assert {"both: 5,7", "more: on"} <= set(lines)


def test_what_comes_after_a_failure_is_not_begun_and_all_else_is(plan: Path) -> None:
    jobs: dict[str, dict[str, object]] = {
        "bad": {"command": "exit 3"},
        "next": {"command": "touch {out}/next", "after": ["bad"]},
        "last": {"command": "touch {out}/last", "after": ["next"]},
        "other": {"command": "echo well"},
    }
    write(plan, jobs)
    code, lines = ran(plan, "5,7")
    assert (code, [name for name in ("next", "last") if (plan.parent / "out" / name).exists()]) == (1, [])
    assert {"next: not begun: bad has failed", "last: not begun: next has failed", "other: well"} <= set(lines)
    assert any(line.startswith("bad: ended with 3 after") for line in lines)


def test_without_the_job_before_it_a_job_runs(plan: Path) -> None:
    write(plan, {"first": {"command": "exit 1"}, "second": {"command": "echo done", "after": ["first"]}})
    code, lines = ran(plan, "5", "--only", "second")
    assert (code, "second: done" in lines) == (0, True)
    assert not any(line.startswith("first") for line in lines)


def test_a_job_whose_time_is_over_is_ended_with_all_it_has_started(plan: Path) -> None:
    write(plan, {"slow": {"command": "sleep 300 & wait", "seconds": 0.2}, "next": {"command": "echo its turn"}})
    code, lines = ran(plan, "5")
    assert (code, "next: its turn" in lines) == (1, True)
    assert "slow: its 0.2 s are over" in lines
    assert any(line.startswith("slow: ended with 124 after") for line in lines)


@pytest.mark.parametrize(
    ("jobs", "arguments", "wrong"),
    [
        ({"a": {"command": "x", "after": ["b"]}, "b": {"command": "x"}}, (), "'a' is to come after 'b'"),
        ({"a": {"command": "x"}}, ("--skip", "z"), "has no job 'z': it has a"),
    ],
)
def test_a_plan_that_cannot_be_followed_is_refused(
    plan: Path, jobs: Mapping[str, Mapping[str, object]], arguments: Sequence[str], wrong: str
) -> None:
    write(plan, jobs)
    refused = command(plan, "start", str(plan), *arguments)
    assert (refused.returncode, wrong in refused.stderr) == (2, True)


@pytest.mark.parametrize("file", sorted((ROOT / "tools" / "plans").glob("*.toml")), ids=lambda file: file.stem)
def test_the_plans_here_are_read(file: Path) -> None:
    jobs = read_plan(file)
    assert all(isinstance(job, Job) and "python -m " in job.command for job in jobs)
