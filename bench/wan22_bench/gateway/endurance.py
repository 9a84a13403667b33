"""Memory under an hour of load: a gateway, many simulated workers, and callers who watch, download and delete."""

from __future__ import annotations

import asyncio
import itertools
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from wan22.client import Client
from wan22.errors import DeadlineExceeded, Unavailable
from wan22_bench.gateway.resources import resident
from wan22_bench.gateway.servers import MeasuredGateway, running_gateway
from wan22_bench.report import Row
from wan22_testing.simulated_pool import VARIANT

WORKERS, CALLERS = 64, 96
"""More callers than workers, so that some of their generations always wait."""
TIME_SCALE = 2.0
"""A generation takes 8 s: eight of them a second, 28,000 an hour."""
SETTLED_MINUTES, SETTLED_SHARE = 10.0, 1 / 3
"""When memory is looked at first: caches are full by then. In a shorter run it is after that share of it."""
SAMPLE_SECONDS = 5.0
WINDOW = 12
"""Samples of a minute, of which the median counts."""
GOAL = 0.05
"""Most that memory may have grown at the end, relative to the first look."""


@dataclass
class Course:
    """How memory went."""

    minutes: float
    samples: list[tuple[float, int, int]] = field(default_factory=list)
    """Seconds since the start, bytes resident, generations ended."""
    ended: int = 0
    given_up: int = 0
    """Videos whose callers waited in vain for an answer, on a machine that is too busy for the load."""

    def rows(self, workers: int) -> Iterator[Row]:
        """Memory at the first look, at the end, and what it gained a thousand generations."""
        look = min(SETTLED_MINUTES * 60, self.minutes * 60 * SETTLED_SHARE)
        early = [sample for sample in self.samples if sample[0] >= look][:WINDOW]
        late = self.samples[-WINDOW:]
        first, last = (median(size for _, size, _ in part) for part in (early, late))
        made = (late[-1][2] - early[0][2]) / 1000
        load = f"{workers} simulated workers, {self.ended} generations in {self.minutes:g} minutes"
        load += f", {self.given_up} given up by their callers" if self.given_up else ""
        yield Row(
            id="P13 memory",
            what=f"growth of the gateway's memory from minute {look / 60:.3g} to the end; {load}",
            value=last / first - 1,
            unit="1",
            goal=GOAL,
            peak_bytes=max(size for _, size, _ in self.samples),
        )
        yield Row(id=None, what=f"resident memory at minute {look / 60:.3g}", value=first / 2**20, unit="MiB")
        yield Row(id=None, what="resident memory at the end", value=last / 2**20, unit="MiB")
        growth = (last - first) / 2**20 / made if made else None
        yield Row(id=None, what="growth a thousand generations", value=growth, unit="MiB")


async def measure(
    folder: Path,
    minutes: float,
    workers: int = WORKERS,
    callers: int = CALLERS,
    time_scale: float = TIME_SCALE,
    sample_seconds: float = SAMPLE_SECONDS,
) -> Iterator[Row]:
    """Has callers make videos for so many minutes, and looks at the gateway's memory meanwhile."""
    course = Course(minutes)
    async with running_gateway(folder) as gateway, AsyncExitStack() as stack:
        await gateway.apply_pool(stack.enter_context(running_fleet(folder / "workers", workers, time_scale)))
        began = time.monotonic()
        async with asyncio.TaskGroup() as group:
            load = [group.create_task(_call(gateway, folder, number, course)) for number in range(callers)]
            while (now := time.monotonic() - began) < minutes * 60:
                course.samples.append((now, resident(gateway.process.pid), course.ended))
                await asyncio.sleep(sample_seconds)
            for caller in load:
                caller.cancel()
    return course.rows(workers)


@contextmanager
def running_fleet(scratch: Path, count: int, time_scale: float) -> Iterator[list[str]]:
    """host:port of so many workers, which one process is."""
    arguments = ["--count", str(count), "--scratch", str(scratch), "--time-scale", str(time_scale)]
    command = [sys.executable, "-m", "wan22_bench.gateway.fleet", *arguments]
    scratch.mkdir(parents=True)
    with (
        (scratch / "log").open("wb") as log,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True) as process,
    ):
        try:
            if process.stdout is None:
                raise RuntimeError("the workers have no output")
            yield [f"127.0.0.1:{port}" for port in process.stdout.readline().split()]
        finally:
            process.kill()


async def _call(gateway: MeasuredGateway, folder: Path, number: int, course: Course) -> None:
    """One video after the other: watched to its end, downloaded, and every second one deleted."""
    path = folder / f"video{number}.mp4"
    async with Client(gateway.process.address, gateway.key) as client:
        for count in itertools.count():
            try:
                await _make(client, f"caller {number}, video {count}", path, delete=bool(count % 2))
                course.ended += 1
            except (DeadlineExceeded, Unavailable):
                course.given_up += 1


async def _make(client: Client, prompt: str, path: Path, *, delete: bool) -> None:
    made = await client.create(
        variant=VARIANT, prompt=prompt, width=480, height=272, num_frames=17, num_inference_steps=10
    )
    await client.wait(made.name)
    await client.download(made.name, path)
    path.unlink()  # noqa: ASYNC240  # a small local file
    if delete:
        await client.delete(made.name)
