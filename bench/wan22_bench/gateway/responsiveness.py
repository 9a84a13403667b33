"""P13: how long HTTP answers take while a long queue waits and many watch it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from statistics import quantiles
from typing import TYPE_CHECKING

import grpc
import httpx

from wan22.v1 import generation_pb2
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
        headers = dict(gateway.metadata)
        limits = httpx.Limits(max_connections=CALLERS)
        base = f"http://127.0.0.1:{gateway.http_port}"
        async with httpx.AsyncClient(base_url=base, headers=headers, limits=limits, timeout=30) as client:
            for goal_id, path, goal in GOALS:
                slowest = quantiles(await _times(client, path, seconds), n=100)[-1]
                what = f"{path}, 99th percentile under {REQUESTS_A_SECOND} requests a second, "
                what += f"{queued} queued, {watchers} watchers"
                rows.append(Row(id=goal_id, what=what, value=slowest, unit="s", goal=goal))
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


async def _times(client: httpx.AsyncClient, path: str, seconds: float) -> list[float]:
    """Seconds from when each request was due until it was answered: one that had to wait for its start counts whole."""
    taken: list[float] = []

    async def one(due: float) -> None:
        answer = await client.get(path)
        answer.raise_for_status()
        taken.append(time.perf_counter() - due)

    began = time.perf_counter()
    async with asyncio.TaskGroup() as requests:
        for number in range(round(seconds * REQUESTS_A_SECOND)):
            due = began + number / REQUESTS_A_SECOND
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            requests.create_task(one(due))
    return taken
