"""P12: calls a second with 64 callers, beside a bare server's, in alternating rounds on the same machine."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import grpc

from wan22.v1 import generation_pb2
from wan22_bench.gateway.servers import Metadata, running_echo, running_gateway, running_postgres, stub_of
from wan22_bench.report import Row
from wan22_testing.simulated_pool import VARIANT

if TYPE_CHECKING:
    from wan22.v1.generation_pb2_grpc import GenerationServiceAsyncStub  # is in the stub file only

CALLERS = 64
SQLITE, POSTGRES = "SQLite", "PostgreSQL"
CREATE_GOAL, GET_GOAL = 0.30, 0.60
"""Of the echo server's throughput."""
Call = Callable[[], Awaitable[object]]


@dataclass
class Rounds:
    """Calls a second of each kind, by round, of a gateway on one kind of store."""

    store: str
    is_goal: bool
    """Whether it is the store that the goals are about."""
    echo_create: list[float] = field(default_factory=list)
    create: list[float] = field(default_factory=list)
    echo_get: list[float] = field(default_factory=list)
    get: list[float] = field(default_factory=list)

    def rows(self) -> Iterator[Row]:
        """The rates, and what goals are about: the median over rounds of each round's ratio."""
        kinds = (
            ("P12a", "durable CreateGeneration", self.create, self.echo_create, CREATE_GOAL),
            ("P12b", "GetGeneration", self.get, self.echo_get, GET_GOAL),
        )
        for goal_id, call, ours, theirs, goal in kinds:
            what = f"{call}, {self.store}, {CALLERS} callers"
            ratio = median(own / peer for own, peer in zip(ours, theirs, strict=True)) if ours else None
            text = f"{what}: its rate to a bare grpc.aio echo servicer's"
            if self.is_goal:
                yield Row(id=goal_id, what=text, value=ratio, unit="1", goal=goal, at_least=True)
            else:
                yield Row(id=None, what=text, value=ratio, unit="1")
            rates = [median(rates) if rates else None for rates in (ours, theirs)]
            yield Row(id=None, what=what, value=rates[0], unit="calls/s", peer=rates[1])


async def measure(folder: Path, rounds: int, seconds: float) -> Iterator[Row]:
    """The rows of a gateway on SQLite, then those of one on PostgreSQL, which have no values where it is missing."""
    rows = [*(await _measure(folder / "sqlite", None, rounds, seconds)).rows()]
    with running_postgres() as url:
        found = Rounds(POSTGRES, is_goal=False)
        if url is not None:
            found = await _measure(folder / "postgres", url, rounds, seconds)
    return iter([*rows, *found.rows()])


async def _measure(folder: Path, database: str | None, rounds: int, seconds: float) -> Rounds:
    """Client and servers are one process each: this one, the gateway, the echo server."""
    found = Rounds(SQLITE if database is None else POSTGRES, is_goal=database is None)
    async with AsyncExitStack() as stack:
        bare = grpc.aio.insecure_channel(stack.enter_context(running_echo()))
        gateway = await stack.enter_async_context(running_gateway(folder, database))
        echo = stub_of(await stack.enter_async_context(bare))
        own = stub_of(await stack.enter_async_context(grpc.aio.insecure_channel(gateway.process.address)))
        names = [(await own.CreateGeneration(request(), metadata=gateway.metadata)).name for _ in range(CALLERS)]
        for _ in range(rounds):
            found.echo_create.append(await rate(creating(echo, gateway.metadata), seconds))
            found.create.append(await rate(creating(own, gateway.metadata), seconds))
            found.echo_get.append(await rate(getting(echo, names, gateway.metadata), seconds))
            found.get.append(await rate(getting(own, names, gateway.metadata), seconds))
    return found


async def rate(calls: Sequence[Call], seconds: float) -> float:
    """Calls a second, each caller making one after the other."""
    began = time.perf_counter()
    end = began + seconds
    counts = await asyncio.gather(*(_until(end, call) for call in calls))
    return sum(counts) / (time.perf_counter() - began)


async def _until(end: float, call: Call) -> int:
    count = 0
    while time.perf_counter() < end:
        await call()
        count += 1
    return count


def request() -> generation_pb2.CreateGenerationRequest:
    """A request of its own id, as a client sends it."""
    parameters = generation_pb2.Parameters(prompt="a red circle moves to the right over a white ground")
    generation = generation_pb2.Generation(variant=VARIANT, parameters=parameters, labels={"project": "bench"})
    return generation_pb2.CreateGenerationRequest(generation=generation, request_id=str(uuid.uuid4()))


def creating(stub: GenerationServiceAsyncStub, metadata: Metadata) -> Sequence[Call]:
    """What each caller does to create."""
    return [lambda: stub.CreateGeneration(request(), metadata=metadata)] * CALLERS


def getting(stub: GenerationServiceAsyncStub, names: Sequence[str], metadata: Metadata) -> Sequence[Call]:
    """What each caller does to look at a generation of its own."""

    def call(name: str) -> Call:
        return lambda: stub.GetGeneration(generation_pb2.GetGenerationRequest(name=name), metadata=metadata)

    return [call(name) for name in names]
