"""`wan22 bench faults`, which also runs as `python -m wan22_bench.faults` from a path alone."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console

from wan22_bench.report import Report, Row, versions_of
from wan22_testing.faults import campaign
from wan22_testing.faults.campaign import Found
from wan22_testing.postgres import programs

STORES = {"sqlite": False, "postgres": True}
GOAL_EVENTS = 1000
VERSIONS = ("grpcio", "sqlalchemy", "psycopg")


def rows(found: Sequence[Found]) -> Iterator[Row]:
    """What was done, and what is wrong."""
    kinds = sum((each.by_kind for each in found), Counter[str]())
    states = sum((each.verdict.states for each in found), Counter[str]())
    told = ", ".join(f"{count} x {kind}" for kind, count in kinds.most_common())
    ended = ", ".join(f"{count} {state}" for state, count in states.most_common())
    accepted = sum(each.accepted for each in found)
    events = sum(each.events for each in found)
    yield Row(id="events", what=told, value=events, unit="1", goal=GOAL_EVENTS, at_least=True)
    yield Row(id=None, what=f"generations accepted meanwhile: {ended}", value=accepted, unit="1")
    for name, what in (
        ("lost", "accepted generations that are gone, or reached no final state"),
        ("doubled", "generations, final events or requests twice"),
        ("wrong", "videos other than the undisturbed ones, failures without a cause, usage that does not add up"),
    ):
        count = sum(len(getattr(each.verdict, name)) for each in found)
        yield Row(id=name, what=what, value=count, unit="1", goal=0)


def main(arguments: list[str] | None = None) -> None:
    """Reads the command line; the exit code is 1 when anything is wrong."""
    parser = argparse.ArgumentParser(prog="wan22 bench faults", description=__doc__)
    parser.add_argument("--events", type=int, default=GOAL_EVENTS, help="in all, shared among the stores")
    parser.add_argument("--seconds", type=float, help="no event begins after so many, in all")
    parser.add_argument("--seed", type=int, help="of what happens when and to whom; drawn and printed when absent")
    parser.add_argument("--store", choices=STORES, action="append", help="both where PostgreSQL is installed")
    parser.add_argument("--folder", type=Path, help="where everything is made; a temporary one if absent")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report there")
    options = parser.parse_args(arguments)
    seed = random.SystemRandom().randrange(1 << 31) if options.seed is None else options.seed
    stores = options.store or [name for name in STORES if name == "sqlite" or programs() is not None]
    logging.basicConfig(level=logging.WARNING)
    logging.getLogger("wan22_testing.faults").setLevel(logging.INFO)
    console = Console(width=180)
    console.print(f"Seed {seed}; stores: {', '.join(stores)}.")
    found: list[Found] = []
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        for number, store in enumerate(stores):
            (Path(folder) / store).mkdir()
            found.append(
                asyncio.run(
                    campaign.run(
                        Path(folder) / store,
                        events=options.events // len(stores),
                        seed=seed + number,
                        on_postgres=STORES[store],
                        seconds=options.seconds and options.seconds / len(stores),
                    )
                )
            )
            for fault in found[-1].verdict.faults:
                console.print(f"{store}: {fault}")
    report = Report(
        name="faults",
        device=f"{len(os.sched_getaffinity(0))} cores",
        command=f"wan22 bench faults --events {options.events} --seed {seed}"
        + "".join(f" --store {store}" for store in options.store or ()),
        rows=[*rows(found)],
        versions=versions_of(*VERSIONS),
    )
    report.show(console)
    if options.json is not None:
        report.write(options.json)
    if any(each.verdict.faults for each in found):
        sys.exit(1)
