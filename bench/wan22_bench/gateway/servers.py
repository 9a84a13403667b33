"""The processes that are measured: a gateway as it is installed, with keys and telemetry on, and the echo server."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from importlib.util import find_spec
from pathlib import Path

import grpc

from wan22.v1 import generation_pb2_grpc
from wan22_gateway.identity.keys import new_secret
from wan22_testing.service_process import ServiceProcess, free_port
from wan22_testing.simulated_pool import VARIANT, apply_pool, declare, put_tokenizer

POOL = f"pools/bench.{VARIANT}"
QUEUE_LIMIT = 1_000_000
"""No goal is about refusals."""
Metadata = Sequence[tuple[str, str]]


class MeasuredGateway:
    """One gateway process that takes one key, on an SQLite store of its own or the PostgreSQL database of a URL."""

    def __init__(self, folder: Path, database: str | None = None) -> None:
        self.key = new_secret()
        self.http_port = free_port()
        self.metadata: Metadata = [("authorization", f"Bearer {self.key}")]
        folder.mkdir(parents=True)
        tenants = folder / "tenants.json"
        declare(tenants, {self.key: ("bench", "admin")})
        local = folder / "gateway"
        put_tokenizer(local)
        self.process = ServiceProcess(
            "wan22_gateway",
            folder / "gateway.log",
            **({"store": local} if database is None else {"store": database, "scratch": local}),
            results=folder / "videos",
            registry="localhost:1",
            tenants_file=tenants,
            queue_limit=QUEUE_LIMIT,
            http_port=self.http_port,
        )

    async def apply_pool(self, targets: Sequence[str] = ()) -> None:
        """Declares the pool, with these workers."""
        await apply_pool(self.process.address, self.key, POOL, targets)


@asynccontextmanager
async def running_gateway(folder: Path, database: str | None = None) -> AsyncIterator[MeasuredGateway]:
    """A gateway that is ready and has the pool, without a worker."""
    gateway = MeasuredGateway(folder, database)
    gateway.process.start()
    try:
        await gateway.process.until()
        await gateway.apply_pool()
        yield gateway
    finally:
        gateway.process.kill()


@contextmanager
def running_postgres() -> Iterator[str | None]:
    """The URL of a database of a server of its own; None where PostgreSQL or psycopg is not installed."""
    if find_spec("psycopg") is None:
        yield None
        return
    from wan22_gateway.store.postgres import migrate_postgres  # noqa: PLC0415  # it needs psycopg, which is an extra
    from wan22_testing.postgres import PostgresServer, programs  # noqa: PLC0415  # and so does this

    if programs() is None:
        yield None
        return
    with PostgresServer() as server:
        url = server.url(server.create())
        migrate_postgres(url, None)
        yield url


@contextmanager
def running_echo() -> Iterator[str]:
    """host:port of an echo server."""
    command = [sys.executable, "-m", "wan22_bench.gateway.echo"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            if process.stdout is None:
                raise RuntimeError("the echo server has no output")
            yield f"127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.kill()


def stub_of(channel: grpc.aio.Channel) -> generation_pb2_grpc.GenerationServiceAsyncStub:
    """GenerationService over a channel."""
    return generation_pb2_grpc.GenerationServiceStub(channel)
