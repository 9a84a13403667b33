"""`wan22 bench gateway`, which also runs as `python -m wan22_bench.gateway` from a path alone."""

from __future__ import annotations

import argparse
import asyncio
import os
import tempfile
from pathlib import Path

from rich.console import Console

from wan22_bench.gateway import endurance, responsiveness, throughput
from wan22_bench.report import Report, Row, versions_of

VERSIONS = ("grpcio", "protobuf", "sqlalchemy")


def main(arguments: list[str] | None = None) -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(prog="wan22 bench gateway", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="rounds of throughput; what counts is their median")
    parser.add_argument("--seconds", type=float, default=4.0, help="of each of a round's four parts, for each store")
    parser.add_argument("--http-seconds", type=float, default=20.0, help="of requests to each HTTP path; 0 for none")
    parser.add_argument(
        "--memory-minutes", type=float, default=0.0, help="of videos made by simulated workers; 0 for none"
    )
    parser.add_argument("--folder", type=Path, help="where stores are made, on the disk to measure")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report there")
    options = parser.parse_args(arguments)
    console = Console(width=180)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        rows: list[Row] = [*asyncio.run(throughput.measure(Path(folder) / "p12", options.rounds, options.seconds))]
        if options.http_seconds:
            rows += asyncio.run(responsiveness.measure(Path(folder) / "p13", options.http_seconds))
        if options.memory_minutes:
            rows += asyncio.run(endurance.measure(Path(folder) / "memory", options.memory_minutes))
    command = f"wan22 bench gateway --rounds {options.rounds} --seconds {options.seconds:g}"
    command += f" --http-seconds {options.http_seconds:g} --memory-minutes {options.memory_minutes:g}"
    report = Report(
        name="gateway",
        device=f"{len(os.sched_getaffinity(0))} cores",
        command=command,
        rows=rows,
        versions=versions_of(*VERSIONS),
    )
    report.show(console)
    if options.json is not None:
        report.write(options.json)
