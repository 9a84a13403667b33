"""grpc.health.v1 in plaintext on a port of its own, answered from its own thread: what kubelet and `wan22 up` ask."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Self

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from wan22.channels import SERVER_OPTIONS

HEARTBEAT_LIMIT = 10.0
"""Seconds without a turn of the event loop after which the process counts as hung."""


class _Servicer(health_pb2_grpc.HealthServicer):
    """`""` and `live`: the event loop turns. `ready`: the service also takes calls."""

    def __init__(self, health: Health) -> None:
        self._health = health

    def Check(  # noqa: N802  # the contract's name
        self, request: health_pb2.HealthCheckRequest, context: grpc.ServicerContext
    ) -> health_pb2.HealthCheckResponse:
        """Answers from the health server's own thread."""
        live = self._health.live
        answers = {"": live, "live": live, "ready": live and self._health.ready}
        if request.service not in answers:
            context.abort(grpc.StatusCode.NOT_FOUND, f"service is {request.service!r}: use '', 'live' or 'ready'.")
        states = health_pb2.HealthCheckResponse
        return states(status=states.SERVING if answers[request.service] else states.NOT_SERVING)


class Health:
    """Whether a process's event loop turns, and what it says of itself; use as an async context manager.

    Without a port it only watches. `port` is the bound one; a given 0 picks a free one.
    """

    def __init__(self, host: str, port: int | None) -> None:
        self.ready = False
        self.port = port
        self._host = host
        self._beat = time.monotonic()
        self._heartbeat: asyncio.Task[None] | None = None
        self._server: grpc.Server | None = None

    @property
    def live(self) -> bool:
        """Whether the event loop has turned lately; may be asked by any thread."""
        return time.monotonic() - self._beat < HEARTBEAT_LIMIT

    async def __aenter__(self) -> Self:
        self._heartbeat = asyncio.create_task(self._beat_for_ever())
        if self.port is not None:
            self._server = grpc.server(ThreadPoolExecutor(2, "health"), options=SERVER_OPTIONS)
            health_pb2_grpc.add_HealthServicer_to_server(_Servicer(self), self._server)
            self.port = self._server.add_insecure_port(f"{self._host}:{self.port}")
            self._server.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.ready = False
        if self._heartbeat is not None:
            self._heartbeat.cancel()
            with suppress(asyncio.CancelledError):
                await self._heartbeat
        if self._server is not None:
            await asyncio.to_thread(self._server.stop(None).wait)

    async def _beat_for_ever(self) -> None:
        while True:
            self._beat = time.monotonic()
            await asyncio.sleep(1.0)
