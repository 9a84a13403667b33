"""Runs the jobs of a plan that need a GPU, as many at once as there are cards.

`python -m tools.card_jobs start tools/plans/tiny_family.toml --out DIR` leaves them at work, in processes that outlive
it; `python -m tools.card_jobs watch --out DIR --seconds 500` shows what they say, for so long at most, and ends with 1
when one of them has failed. CUDA_VISIBLE_DEVICES says which cards are theirs; all are by default. A job begins when a
card is free and the jobs that it comes after have succeeded; earlier ones in the plan come first.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shlex
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self, TextIO

PAUSE_SECONDS = 0.5
ENDED = "ended with "
"""The last line of a job's log says it, with the exit code and the time behind."""
SKIPPED = "not begun: "
JOBS_FILE = "jobs.json"
VISIBLE = "CUDA_VISIBLE_DEVICES"
PATIENCE_SECONDS = 20.0
"""For a job whose time is over, from SIGTERM to SIGKILL."""


@dataclass(frozen=True)
class Job:
    """A command, and what it needs."""

    name: str
    command: str
    """For a shell; {out} is the folder of results."""
    cards: int = 1
    after: tuple[str, ...] = ()
    """Jobs that have to succeed before, where they are asked for at all."""
    seconds: float | None = None
    """The most that it may take."""

    @classmethod
    def of(cls, table: Mapping[str, Any]) -> Self:
        """That of a plan's table, or of JSON."""
        return cls(**{**table, "after": tuple(table.get("after", ()))})


def read_plan(path: Path, only: Sequence[str] = (), skip: Sequence[str] = ()) -> list[Job]:
    """The jobs of a file, or some. Raises ValueError naming what is wrong."""
    jobs = [Job.of(table) for table in tomllib.loads(path.read_text())["job"]]
    names = [job.name for job in jobs]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"{path} has two jobs {twice[0]!r}")
    for position, job in enumerate(jobs):
        if late := sorted(set(job.after) - set(names[:position])):
            raise ValueError(f"{path}: {job.name!r} is to come after {late[0]!r}, which is not before it")
    if unknown := sorted({*only, *skip} - set(names)):
        raise ValueError(f"{path} has no job {unknown[0]!r}: it has {', '.join(names)}")
    chosen = {name for name in names if (not only or name in only) and name not in skip}
    return [
        replace(job, after=tuple(name for name in job.after if name in chosen)) for job in jobs if job.name in chosen
    ]


class Cards:
    """The cards that are free; who waits longest is asked first."""

    def __init__(self, names: Sequence[str]) -> None:
        self._free = list(names)
        self._count = len(names)
        self._changed = asyncio.Condition()

    async def take(self, wanted: int) -> list[str]:
        """So many, or all that there are."""
        wanted = min(wanted, self._count)
        async with self._changed:
            await self._changed.wait_for(lambda: len(self._free) >= wanted)
            taken, self._free = self._free[:wanted], self._free[wanted:]
            return taken

    async def give_back(self, cards: Sequence[str]) -> None:
        """For others."""
        async with self._changed:
            self._free += cards
            self._changed.notify_all()


async def run(jobs: Sequence[Job], out: Path, cards: Cards) -> None:
    """Runs all; what each says goes to DIR/NAME.log."""
    ends: dict[str, asyncio.Future[int]] = {job.name: asyncio.get_running_loop().create_future() for job in jobs}

    async def run_one(job: Job) -> None:
        with (out / f"{job.name}.log").open("w") as log:
            failed = [name for name in job.after if await asyncio.shield(ends[name]) != 0]
            if failed:
                log.write(f"{SKIPPED}{failed[0]} has failed\n{ENDED}1 after 0 s\n")
                ends[job.name].set_result(1)
                return
            taken = await cards.take(job.cards)
            began = time.monotonic()
            code = await _run_command(job, out, taken, log)
            await cards.give_back(taken)
            log.write(f"{ENDED}{code} after {time.monotonic() - began:.0f} s\n")
            ends[job.name].set_result(code)

    async with asyncio.TaskGroup() as group:
        for job in jobs:
            group.create_task(run_one(job))


async def _run_command(job: Job, out: Path, cards: Sequence[str], log: TextIO) -> int:
    environment = os.environ | {VISIBLE: ",".join(cards)}
    command = job.command.replace("{out}", shlex.quote(str(out)))
    process = await asyncio.create_subprocess_shell(
        command, stdout=log, stderr=log, env=environment, start_new_session=True
    )
    try:
        return await asyncio.wait_for(process.wait(), job.seconds)
    except TimeoutError:
        os.killpg(process.pid, signal.SIGTERM)
    try:
        await asyncio.wait_for(process.wait(), PATIENCE_SECONDS)
    except TimeoutError:
        os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
    log.write(f"its {job.seconds:g} s are over\n")
    return 124


def start(jobs: Sequence[Job], out: Path, cards: Sequence[str]) -> None:
    """Leaves the jobs to a process that outlives this one."""
    out.mkdir(parents=True, exist_ok=True)
    for job in jobs:
        (out / f"{job.name}.log").unlink(missing_ok=True)
    told = {"cards": cards, "jobs": [asdict(job) for job in jobs]}
    (out / JOBS_FILE).write_text(json.dumps(told, indent=1))
    with (out / "card_jobs.err").open("w") as errors:
        subprocess.Popen(
            [sys.executable, "-m", "tools.card_jobs", "run", "--out", str(out)],
            stdin=subprocess.DEVNULL,
            stdout=errors,
            stderr=errors,
            start_new_session=True,
        )


def watch(out: Path, seconds: float) -> int:
    """Copies what the jobs' logs get to standard output; returns how many of the jobs have failed."""
    names = [job["name"] for job in _told(out)["jobs"]]
    read = dict.fromkeys(names, 0)
    ends: dict[str, int] = {}
    deadline = time.monotonic() + seconds
    while True:
        over = time.monotonic() > deadline
        for name in names:
            path = out / f"{name}.log"
            if not path.exists():
                continue
            with path.open(errors="replace") as log:
                log.seek(read[name])
                while (line := log.readline()).endswith("\n"):
                    read[name] = log.tell()
                    sys.stdout.write(line if line.startswith(f"{name}: ") else f"{name}: {line}")
                    if line.startswith(ENDED):
                        ends[name] = int(line.removeprefix(ENDED).split()[0])
        sys.stdout.flush()
        if over or len(ends) == len(names):
            return sum(code != 0 for code in ends.values())
        time.sleep(PAUSE_SECONDS)


def _told(out: Path) -> Mapping[str, Any]:
    told: Mapping[str, Any] = json.loads((out / JOBS_FILE).read_text())
    return told


def _cards() -> list[str]:
    """Those that CUDA shows; where it shows none, jobs take turns on the CPU."""
    if visible := os.environ.get(VISIBLE):
        return visible.split(",")
    import torch  # noqa: PLC0415  # seconds, for those that need it

    return [str(card) for card in range(max(1, torch.cuda.device_count()))]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tools.card_jobs", description=__doc__.partition("\n")[0])
    parser.add_argument("action", choices=["start", "watch", "run"], help="`run` is what `start` leaves at work")
    parser.add_argument("plan", nargs="?", type=Path, help="a file of jobs, as those in tools/plans are")
    parser.add_argument("--out", type=Path, required=True, help="the folder of logs and results")
    parser.add_argument("--only", nargs="+", default=(), metavar="JOB", help="these of the plan")
    parser.add_argument("--skip", nargs="+", default=(), metavar="JOB", help="all but these")
    parser.add_argument("--seconds", type=float, default=500.0, help="how long to watch")
    given = parser.parse_args()
    out = given.out.resolve()
    if given.action == "start":
        if given.plan is None:
            parser.error("start needs a plan, such as tools/plans/tiny_family.toml")
        try:
            jobs = read_plan(given.plan, given.only, given.skip)
        except ValueError as error:
            parser.error(str(error))
        start(jobs, out, _cards())
        return
    if not (out / JOBS_FILE).exists():
        parser.error(f"{out} has no jobs: start some")
    if given.action == "watch":
        sys.exit(1 if watch(out, given.seconds) else 0)
    told = _told(out)
    asyncio.run(run([Job.of(table) for table in told["jobs"]], out, Cards(told["cards"])))


if __name__ == "__main__":
    main()
