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
from wan22_bench.gateway.servers import VARIANT, Metadata, running_echo, running_gateway, stub_of
from wan22_bench.report import Row

if TYPE_CHECKING:
    from wan22.v1.generation_pb2_grpc import GenerationServiceAsyncStub  # is in the stub file only

CALLERS = 64
CREATE_GOAL, GET_GOAL = 0.30, 0.60
"""Of the echo server's throughput."""
Call = Callable[[], Awaitable[object]]


@dataclass
class Rounds:
    """Calls a second of each kind, by round."""

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
        for goal_id, what, ours, theirs, goal in kinds:
            ratio = median(own / peer for own, peer in zip(ours, theirs, strict=True))
            text = f"{what}, {CALLERS} callers: its rate to a bare grpc.aio echo servicer's"
            yield Row(id=goal_id, what=text, value=ratio, unit="1", goal=goal, at_least=True)
            text = f"{what}, {CALLERS} callers"
            yield Row(id=None, what=text, value=median(ours), unit="calls/s", peer=median(theirs))


async def measure(folder: Path, rounds: int, seconds: float) -> Iterator[Row]:
    """Client and servers are one process each: this one, the gateway, the echo server."""
    found = Rounds()
    async with AsyncExitStack() as stack:
        bare = grpc.aio.insecure_channel(stack.enter_context(running_echo()))
        gateway = await stack.enter_async_context(running_gateway(folder))
        echo = stub_of(await stack.enter_async_context(bare))
        own = stub_of(await stack.enter_async_context(grpc.aio.insecure_channel(gateway.process.address)))
        names = [(await own.CreateGeneration(request(), metadata=gateway.metadata)).name for _ in range(CALLERS)]
        for _ in range(rounds):
            found.echo_create.append(await rate(creating(echo, gateway.metadata), seconds))
            found.create.append(await rate(creating(own, gateway.metadata), seconds))
            found.echo_get.append(await rate(getting(echo, names, gateway.metadata), seconds))
            found.get.append(await rate(getting(own, names, gateway.metadata), seconds))
    return found.rows()


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
