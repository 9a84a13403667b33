"""Trains several stages of the tiny family at once, on a GPU each where there are several.

`python -m tools.train_family start t2v-high:3 t2v-low i2v-high i2v-low --out DIR --seconds 1500` leaves them at work,
in processes that outlive it, the first one on three cards together; `python -m tools.train_family watch --out DIR
--seconds 500` shows what they say, for so long at most, and ends with 1 when one of them has failed. A stage that is
started again goes on with its own weights.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from tools.train_tiny.__main__ import STAGES
from tools.train_tiny.run import add_options

PAUSE_SECONDS = 1.0
ENDED = "ended with "
"""The last line of a stage's log says it, with the exit code behind."""
KEEP_ENDED = '"$@"; echo "ended with $?"'
"""A shell's script: nobody is there to ask the process itself for its exit code."""


def start(out: Path, stages: Mapping[str, int], options: Sequence[str], first: int = 0) -> None:
    """Starts each stage as a process of its own, or one a card where it has several, whose log is DIR/STAGE.log."""
    out.mkdir(parents=True, exist_ok=True)
    for stage, wanted in stages.items():
        run = ["-m", "tools.train_tiny", stage, "--out", str(out), *options]
        together = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={wanted}"]
        command = [sys.executable, *(together if wanted > 1 else []), *run]
        environment = dict(os.environ)
        if (cards := torch.cuda.device_count()) > 1:
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(str(card % cards) for card in range(first, first + wanted))
        first += wanted
        with (out / f"{stage}.log").open("w") as log:
            subprocess.Popen(
                ["sh", "-c", KEEP_ENDED, "sh", *command],
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,
            )


def watch(out: Path, seconds: float) -> int:
    """Copies what the stages' logs get to standard output; returns how many of the stages have failed."""
    logs = {path: path.open() for path in sorted(out.glob("*.log"))}
    ends: dict[Path, int] = {}
    deadline = time.monotonic() + seconds
    try:
        while True:
            over = time.monotonic() > deadline
            for path, log in logs.items():
                for line in log:
                    sys.stdout.write(line if line.startswith(path.stem) else f"{path.stem}: {line}")
                    if line.startswith(ENDED):
                        ends[path] = int(line.removeprefix(ENDED))
            sys.stdout.flush()
            if over or len(ends) == len(logs):
                return sum(code != 0 for code in ends.values())
            time.sleep(PAUSE_SECONDS)
    finally:
        for log in logs.values():
            log.close()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tools.train_family", description=__doc__.partition("\n")[0])
    parser.add_argument("action", choices=["start", "watch"])
    parser.add_argument("stages", nargs="*", metavar="STAGE[:CARDS]", help=f"of {', '.join(STAGES)}")
    parser.add_argument("--first", type=int, default=0, metavar="CARD", help="the first stage's first card")
    add_options(parser)
    given = parser.parse_intermixed_args()
    stages = {name: int(cards or 1) for name, _, cards in (stage.partition(":") for stage in given.stages)}
    if unknown := sorted(stages.keys() - STAGES.keys()):
        parser.error(f"{unknown[0]!r} is no stage: use {', '.join(STAGES)}")
    if given.action == "watch":
        if not list(given.out.glob("*.log")):
            parser.error(f"{given.out} has no log of a stage: start one")
        sys.exit(1 if watch(given.out, given.seconds) else 0)
    options = {"--seconds": given.seconds, "--batch": given.batch, "--clips": given.clips}
    set_options = [f"{name}={value}" for name, value in options.items() if value is not None]
    start(given.out, stages, set_options, given.first)


if __name__ == "__main__":
    main()
