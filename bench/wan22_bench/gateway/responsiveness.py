"""P13: how long HTTP answers take while a long queue waits and many watch it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, quantiles
from typing import TYPE_CHECKING

import grpc

from wan22.v1 import generation_pb2
from wan22_bench.gateway.http_load import Load, Taken
from wan22_bench.gateway.resources import Usage
from wan22_bench.gateway.servers import Metadata, running_gateway, stub_of
from wan22_bench.gateway.throughput import CALLERS, request
from wan22_bench.report import Row

if TYPE_CHECKING:
    from wan22.v1.generation_pb2_grpc import GenerationServiceAsyncStub  # is in the stub file only

REQUESTS_A_SECOND = 200
QUEUED, WATCHERS = 5000, 1000


@dataclass(frozen=True)
class Goal:
    """How long a path's answers may take, seconds."""

    id: str
    path: str
    mean: float
    p95: float
    p99: float


GOALS = (Goal("P13a", "/health", 0.005, 0.010, 0.015), Goal("P13b", "/models", 0.025, 0.050, 0.050))


async def measure(folder: Path, seconds: float, queued: int = QUEUED, watchers: int = WATCHERS) -> Iterator[Row]:
    """Both paths, one after the other, for so many seconds each, and what the gateway takes then and before."""
    rows: list[Row] = []
    async with AsyncExitStack() as stack:
        gateway = await stack.enter_async_context(running_gateway(folder))
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(gateway.process.address))
        pid = gateway.process.pid
        with (idle := Usage(pid, "idle", 0.05, 2.0)):
            await asyncio.sleep(seconds)
        with (heavy := Usage(pid, f"{CALLERS} callers creating as fast as they can", 0.85, 24.0)):
            names = await _queue(stub_of(channel), gateway.metadata, queued)
        calls = [_watch(stub_of(channel), name, gateway.metadata) for name in names[:watchers]]
        await asyncio.gather(*(call.read() for call in calls))  # each is attached
        watching = [asyncio.create_task(_drain(call)) for call in calls]
        under = f"under {REQUESTS_A_SECOND} requests a second, {queued} queued, {watchers} watchers"
        async with Load(gateway.http_port, dict(gateway.metadata)) as load:
            with (light := Usage(pid, under, 0.25, 8.0)):
                for goal in GOALS:
                    rows += _rows(goal, under, await load.run(goal.path, REQUESTS_A_SECOND, seconds))
        for task in watching:
            task.cancel()
    return iter([*rows, *idle.rows(), *light.rows(), *heavy.rows()])


def _rows(goal: Goal, under: str, taken: Sequence[Taken]) -> Iterator[Row]:
    times = [each.since_due for each in taken]
    hundredths = quantiles(times, n=100)
    yield Row(id=goal.id, what=f"{goal.path}, 99th percentile {under}", value=hundredths[98], unit="s", goal=goal.p99)
    yield Row(id=None, what=f"{goal.path}, 95th percentile", value=hundredths[94], unit="s", goal=goal.p95)
    yield Row(id=None, what=f"{goal.path}, mean", value=fmean(times), unit="s", goal=goal.mean)
    late = quantiles([each.late for each in taken], n=100)[98]
    yield Row(id=None, what=f"how late the client itself was, {goal.path}", value=late, unit="s")


async def _queue(stub: GenerationServiceAsyncStub, metadata: Metadata, count: int) -> list[str]:
    names: list[str] = []

    async def create() -> None:
        while len(names) < count:
            names.append((await stub.CreateGeneration(request(), metadata=metadata)).name)

    await asyncio.gather(*(create() for _ in range(CALLERS)))
    return names


def _watch(
    stub: GenerationServiceAsyncStub, name: str, metadata: Metadata
) -> grpc.aio.UnaryStreamCall[generation_pb2.WatchGenerationRequest, generation_pb2.GenerationEvent]:
    return stub.WatchGeneration(generation_pb2.WatchGenerationRequest(name=name), metadata=metadata)


async def _drain(
    call: grpc.aio.UnaryStreamCall[generation_pb2.WatchGenerationRequest, generation_pb2.GenerationEvent],
) -> None:
    async for _ in call:
        pass
