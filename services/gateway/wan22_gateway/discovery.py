"""Finding workers: every target of every pool is asked who it is; what answers becomes a row with a lease."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from contextlib import suppress
from typing import TYPE_CHECKING

import grpc

from wan22.errors import Wan22Error
from wan22.status import from_rpc_error
from wan22.v1 import inference_pb2
from wan22_gateway.store import claims, pools
from wan22_gateway.store.database import Database, Transaction
from wan22_gateway.store.pools import PoolRow
from wan22_gateway.worker_channels import WorkerChannels

if TYPE_CHECKING:
    from wan22.v1.inference_pb2_grpc import InferenceServiceAsyncStub  # of the stubs, not of the generated code

log = logging.getLogger(__name__)
ROUND_SECONDS = 2.0
"""How often each target is looked up and asked."""
ANSWER_SECONDS = 2.0
"""How long one answer may take."""


class Discovery:
    """Keeps the workers' rows true. An address is nothing until GetWorker has named this pool and its version."""

    def __init__(self, database: Database, channels: WorkerChannels, lease_seconds: float) -> None:
        self._database = database
        self._channels = channels
        self._lease_seconds = lease_seconds
        self._looked_at: set[str] = set()
        self._strangers: dict[str, str] = {}

    def complete(self, pool: str) -> bool:
        """True once every target of the pool has been looked at since this process started."""
        return pool in self._looked_at

    async def run(self) -> None:
        """Looks around for ever: every 2 s, and at once when a pool changes."""
        with self._database.listen("pools") as wake:
            while True:
                wake.clear()
                rows = await self._database.read(pools.list_all)
                async with asyncio.TaskGroup() as group:
                    for pool in rows:
                        group.create_task(self._look_at(pool))
                with suppress(TimeoutError):
                    async with asyncio.timeout(ROUND_SECONDS):
                        await wake.wait()

    async def _look_at(self, pool: PoolRow) -> None:
        targets: list[str] = json.loads(pool.worker_targets)
        addresses = {address for target in targets for address in await _resolve(target)}
        async with asyncio.TaskGroup() as group:
            for address in addresses:
                group.create_task(self._ask(pool, address))
        self._looked_at.add(pool.name)

    async def _ask(self, pool: PoolRow, address: str) -> None:
        stub = self._channels.stub(address)
        try:
            worker = await stub.GetWorker(inference_pb2.GetWorkerRequest(), timeout=ANSWER_SECONDS)
        except grpc.aio.AioRpcError:
            return  # a missing answer removes nobody; the lease runs on
        if worker.pool != pool.name or worker.model_version != pool.model_version:
            self._note_stranger(address, f"{worker.name} of {worker.pool} with {worker.model_version}", pool)
            return
        self._strangers.pop(address, None)
        if await self._database.read(self._is_news, worker, address):
            await self._database.write(pools.heard_from, worker, address, self._lease_seconds)
        for held in worker.attempts:
            await self._end_if_stale(stub, worker.name, held)

    def _is_news(self, tx: Transaction, worker: inference_pb2.Worker, address: str) -> bool:
        known = {row.name: row for row in pools.workers_of(tx, worker.pool)}.get(worker.name)
        if known is None or known.lease_expire_time < tx.now + self._lease_seconds * 500_000:
            return True
        said = (worker.uid, worker.incarnation, address, inference_pb2.Worker.State.Name(worker.state))
        stored = (known.uid, known.incarnation, known.address, known.state)
        return said != stored or worker.bytes_loaded != known.bytes_loaded or worker.error.message != known.error

    async def _end_if_stale(
        self, stub: InferenceServiceAsyncStub, worker: str, held: inference_pb2.HeldAttempt
    ) -> None:
        """Stops and frees an attempt that the store has given up: the worker was away while its lease ran out."""
        generation = held.attempt.generation.removeprefix("generations/")
        row = await self._database.read(claims.claimed_row, generation)
        if row is not None and row.claimed_worker == worker and row.claimed_attempt == held.attempt.number:
            return
        log.info("%s holds attempt %d of %s, which is over: ending it.", worker, held.attempt.number, generation)
        try:
            if held.running:
                await stub.CancelAttempt(
                    inference_pb2.CancelAttemptRequest(attempt=held.attempt), timeout=ANSWER_SECONDS
                )
            release = inference_pb2.ReleaseAttemptRequest(attempt=held.attempt)
            await stub.ReleaseAttempt(release, timeout=ANSWER_SECONDS)
        except grpc.aio.AioRpcError as error:
            failure: Wan22Error = from_rpc_error(error)
            log.info("%s did not end it: %s", worker, failure.message)  # the next round tries again

    def _note_stranger(self, address: str, who: str, pool: PoolRow) -> None:
        if self._strangers.get(address) != who:
            self._strangers[address] = who
            log.warning("%s answers as %s, but %s wants %s: not used.", address, who, pool.name, pool.model_version)


async def _resolve(target: str) -> list[str]:
    host, _, port = target.rpartition(":")
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
    except OSError as error:
        log.info("Worker target %s cannot be looked up: %s", target, error)
        return []
    return [f"[{address[0]}]:{port}" if ":" in str(address[0]) else f"{address[0]}:{port}" for *_, address in found]
