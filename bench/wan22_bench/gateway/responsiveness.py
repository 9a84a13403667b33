"""P13: how long HTTP answers take while a long queue waits and many watch it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from statistics import quantiles
from typing import TYPE_CHECKING

import grpc

from wan22.v1 import generation_pb2
from wan22_bench.gateway.http_load import Load
from wan22_bench.gateway.servers import Metadata, running_gateway, stub_of
from wan22_bench.gateway.throughput import CALLERS, request
from wan22_bench.report import Row

if TYPE_CHECKING:
    from wan22.v1.generation_pb2_grpc import GenerationServiceAsyncStub  # is in the stub file only

REQUESTS_A_SECOND = 200
QUEUED, WATCHERS = 5000, 1000
GOALS = (("P13a", "/health", 0.015), ("P13b", "/models", 0.050))
"""Each path's 99th percentile, seconds."""


async def measure(folder: Path, seconds: float, queued: int = QUEUED, watchers: int = WATCHERS) -> Iterator[Row]:
    """Both paths, one after the other, for so many seconds each."""
    rows = []
    async with AsyncExitStack() as stack:
        gateway = await stack.enter_async_context(running_gateway(folder))
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(gateway.process.address))
        names = await _queue(stub_of(channel), gateway.metadata, queued)
        calls = [_watch(stub_of(channel), name, gateway.metadata) for name in names[:watchers]]
        await asyncio.gather(*(call.read() for call in calls))  # each is attached
        watching = [asyncio.create_task(_drain(call)) for call in calls]
        async with Load(gateway.http_port, dict(gateway.metadata)) as load:
            for goal_id, path, goal in GOALS:
                taken = await load.run(path, REQUESTS_A_SECOND, seconds)
                slowest = quantiles([each.since_due for each in taken], n=100)[-1]
                what = f"{path}, 99th percentile under {REQUESTS_A_SECOND} requests a second, "
                what += f"{queued} queued, {watchers} watchers"
                rows.append(Row(id=goal_id, what=what, value=slowest, unit="s", goal=goal))
                late = quantiles([each.late for each in taken], n=100)[-1]
                rows.append(Row(id=None, what=f"how late the client itself was, {path}", value=late, unit="s"))
        for task in watching:
            task.cancel()
    return iter(rows)


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
