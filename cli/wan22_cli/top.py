"""`wan22 top`: the pools of a gateway, their workers and their queues, as they change."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import nullcontext
from typing import Annotated

import typer
from rich.console import Group, RenderableType
from rich.live import Live
from rich.text import Text

from wan22.errors import DeadlineExceeded, Unavailable
from wan22.v1 import pool_pb2
from wan22.v1.inference_pb2 import Worker
from wan22.v1.pool_pb2 import Pool, PoolWorker
from wan22.v1.pool_pb2_grpc import PoolServiceStub
from wan22_cli import failures, options
from wan22_cli.gateway_calls import open_calls
from wan22_cli.terminal import file_size, out, print_json, show, table_of, utc_time

STREAM_SECONDS = 60.0
"""How long one stream lasts; another one follows, unless the gateway said nothing all the while."""
READY = (Worker.IDLE, Worker.BUSY)
POOLS = ("POOL", "VARIANT", "QUEUED", "WORK", "RUNNING", "READY", "OTHERS", "MOST", "ASKED/MIN", "IN THE WAY")
WORKERS = ("WORKER", "POOL", "STATE", "GPU", "GENERATION", "TIME", "NEXT")


def top(
    once: Annotated[bool, typer.Option("--once", help="Show what there is now, and end.")] = False,
    endpoint: options.Endpoint = None,
    json: options.Json = False,
) -> None:
    """Shows pools, workers and queues as they change, until Ctrl-C. With a key it takes the role OPERATOR."""

    async def command() -> None:
        live = Live(console=out, auto_refresh=False) if out.is_terminal and not (json or once) else None
        with live or nullcontext():
            async for pools in _states(endpoint):
                if json:
                    for pool in pools:
                        print_json(pool)
                elif live is not None:
                    live.update(_page(pools), refresh=True)
                else:
                    show(_page(pools))
                if once:
                    return

    failures.run(command())


async def _states(endpoint: str | None) -> AsyncIterator[Sequence[Pool]]:
    """All pools at each change of one, over as many streams as it takes. Raises Unavailable where nobody answers."""
    request = pool_pb2.WatchPoolsRequest()
    request.max_interval.FromSeconds(2)
    async with open_calls(endpoint) as (channel, calls):
        watch, patience = PoolServiceStub(channel).WatchPools, calls.patience()
        while True:
            silent = True
            try:
                async with calls.stream(watch, request, deadline=STREAM_SECONDS) as answers:
                    async for answer in answers:
                        silent, patience = False, calls.patience()
                        yield answer.pools
            except Unavailable as error:
                await patience.pause(error)
            except DeadlineExceeded:
                if silent:
                    raise


def _page(pools: Sequence[Pool]) -> RenderableType:
    if not pools:
        return Text("No pools: nobody has declared any.")
    time = Text(utc_time(pools[0].demand.as_of_time), style="dim")
    workers = [row for pool in pools for row in worker_rows(pool)]
    parts: list[RenderableType] = [time, table_of(POOLS, [_pool_row(pool) for pool in pools])]
    if workers:
        parts += [Text(), table_of(WORKERS, workers)]
    return Group(*parts)


def _pool_row(pool: Pool) -> list[str]:
    demand = pool.demand
    queued = sum(bucket.count for bucket in demand.queued)
    work = sum(bucket.predicted_seconds for bucket in demand.queued)
    ready = sum(worker.alive and worker.state in READY for worker in pool.workers)
    return [
        pool.name.removeprefix("pools/"),
        pool.variant,
        str(queued),
        duration(work) if queued else "-",
        str(len(demand.running)),
        str(ready),
        str(len(pool.workers) - ready),
        str(pool.max_workers),
        str(demand.arrivals_60s),
        pool.obstacle or "-",
    ]


def worker_rows(pool: Pool) -> Iterator[list[str]]:
    """Of each worker of a pool what WORKERS names."""
    running = {work.worker: work for work in pool.demand.running}
    for worker in sorted(pool.workers, key=lambda worker: worker.name):
        work = running.get(worker.name)
        yield [
            worker.name.removeprefix("workers/"),
            pool.name.removeprefix("pools/"),
            _state(worker),
            f"{worker.gpu.utilization:.0%}" if worker.HasField("gpu") else "-",
            worker.generation.removeprefix("generations/") or "-",
            f"{duration(work.elapsed_seconds)} of {duration(work.predicted_seconds)}" if work is not None else "-",
            worker.prepared.removeprefix("generations/") or "-",
        ]


def _state(worker: PoolWorker) -> str:
    if not worker.alive:
        return "silent"
    state = Worker.State.Name(worker.state).lower()
    if worker.state == Worker.LOADING and worker.bytes_left:
        state += f", {file_size(worker.bytes_left)} to go"
    if worker.error:
        state += f": {worker.error}"
    return f"{state}, drained" if worker.HasField("drain_expire_time") else state


def duration(seconds: float) -> str:
    """Seconds for people: 42 s, 3:05 min, 2:10 h."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02} min"
    return f"{whole // 3600}:{whole % 3600 // 60:02} h"
