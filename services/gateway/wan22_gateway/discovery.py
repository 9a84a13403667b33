"""Finding workers: every target of every pool is asked who it is; what answers becomes a row with a lease."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import grpc

from wan22.errors import Wan22Error
from wan22.status import from_rpc_error
from wan22.v1 import inference_pb2
from wan22_gateway.gpu_readings import GpuReadings
from wan22_gateway.store import claims, pools, quarantine
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


@dataclass(frozen=True)
class _Place:
    """An address where a pool's worker should answer."""

    pool: str
    versions: frozenset[str]
    address: str


class Discovery:
    """Keeps the workers' rows true. An address is nothing until GetWorker has named this pool and a version of it."""

    def __init__(self, database: Database, channels: WorkerChannels, lease_seconds: float) -> None:
        self._database = database
        self._channels = channels
        self._lease_seconds = lease_seconds
        self._followed: dict[_Place, asyncio.Task[None]] = {}
        self._asked: set[_Place] = set()
        self._looked_up: set[str] = set()
        self._strangers: dict[str, str] = {}
        self.gpus = GpuReadings()

    def complete(self, pool: str) -> bool:
        """True once every target of the pool was looked up, and every address asked, since this process started."""
        places = [place for place in list(self._followed) if place.pool == pool]
        return pool in self._looked_up and all(place in self._asked for place in places)

    async def run(self) -> None:
        """Looks around for ever: targets are looked up every 2 s, and at once when a pool changes."""
        self._followed.clear()  # who followed before has ended, where the store's trouble ended an earlier run
        async with asyncio.TaskGroup() as group:
            with self._database.listen("pools") as wake:
                while True:
                    wake.clear()
                    now = await self._database.read(lambda tx: tx.now)
                    wanted: set[_Place] = set()
                    for pool in await self._database.read(pools.list_all):
                        wanted |= await self._look_up(pool, now)
                    for place in self._followed.keys() - wanted:
                        self._followed.pop(place).cancel()
                        self._asked.discard(place)
                        self.gpus.forget(place.pool, place.address)
                    for place in wanted - self._followed.keys():
                        self._followed[place] = group.create_task(self._follow(place))
                    with suppress(TimeoutError):
                        async with asyncio.timeout(ROUND_SECONDS):
                            await wake.wait()

    async def _look_up(self, pool: PoolRow, now: int) -> set[_Place]:
        """Where a pool's workers answer now; those that it no longer leads to are lost when their lease is over."""
        targets: list[str] = json.loads(pool.worker_targets)
        addresses = {address for target in targets for address in await _resolve(target)}
        known = {worker.address for worker in await self._database.read(pools.workers_of, pool.name)}
        await self._lose_silent(pool.name, known - addresses, now)
        self._looked_up.add(pool.name)
        return {_Place(pool.name, pools.versions_of(pool), address) for address in addresses}

    async def _follow(self, place: _Place) -> None:
        """Asks one address for ever; each has a task of its own, so that a slow one delays nobody."""
        while True:
            began = await self._database.read(lambda tx: tx.now)
            if not await self._ask(place):
                await self._lose_silent(place.pool, {place.address}, began)
            self._asked.add(place)
            await asyncio.sleep(ROUND_SECONDS)

    async def _lose_silent(self, pool: str, addresses: set[str], asked_since: int) -> None:
        if await self._database.read(pools.any_silent, pool, addresses, asked_since):
            for name in await self._database.write(pools.lose_silent, pool, addresses, asked_since):
                log.warning("%s does not answer: it counts as lost.", name)

    async def _ask(self, place: _Place) -> bool:
        """Asks who answers at an address and records it; False without an answer."""
        stub = self._channels.stub(place.address)
        try:
            worker = await stub.GetWorker(inference_pb2.GetWorkerRequest(), timeout=ANSWER_SECONDS)
        except grpc.aio.AioRpcError:
            return False  # a missing answer removes nobody; the lease runs on
        if worker.state not in inference_pb2.Worker.State.values():
            self._note_stranger(place, f"{worker.name} in state {worker.state}, which this version does not know")
            return False
        if worker.pool != place.pool or worker.model_version not in place.versions:
            self._note_stranger(place, f"{worker.name} of {worker.pool} with {worker.model_version or 'no model yet'}")
            return False
        self._strangers.pop(place.address, None)
        self.gpus.note(worker, place.address)
        if await self._database.read(self._is_news, worker, place.address):
            if await self._database.read(quarantine.is_back, worker):
                await self._database.write(quarantine.heard_again, worker)
            await self._database.write_own(pools.heard_from, worker, place.address, self._lease_seconds)
        for held in worker.attempts:
            await self._end_if_stale(stub, worker.name, held)
        return True

    def _is_news(self, tx: Transaction, worker: inference_pb2.Worker, address: str) -> bool:
        known = {row.name: row for row in pools.workers_of(tx, worker.pool)}.get(worker.name)
        if known is None or known.lease_expire_time < tx.now + self._lease_seconds * 500_000:
            return True
        state = inference_pb2.Worker.State.Name(worker.state)
        said = (worker.uid, worker.incarnation, address, state, worker.numerics_digest, worker.model_version)
        stored = (
            *(known.uid, known.incarnation, known.address),
            *(known.state, known.numerics_digest, known.model_version),
        )
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
            if held.running or held.prepared:
                await stub.CancelAttempt(
                    inference_pb2.CancelAttemptRequest(attempt=held.attempt), timeout=ANSWER_SECONDS
                )
            if held.prepared:
                return  # it never had an outcome
            release = inference_pb2.ReleaseAttemptRequest(attempt=held.attempt)
            await stub.ReleaseAttempt(release, timeout=ANSWER_SECONDS)
        except grpc.aio.AioRpcError as error:
            failure: Wan22Error = from_rpc_error(error)
            log.info("%s did not end it: %s", worker, failure.message)  # the next round tries again

    def _note_stranger(self, place: _Place, who: str) -> None:
        if self._strangers.get(place.address) != who:
            self._strangers[place.address] = who
            text = "%s answers as %s, but %s wants %s: not used."
            log.warning(text, place.address, who, place.pool, " or ".join(sorted(place.versions)))


async def _resolve(target: str) -> list[str]:
    host, _, port = target.rpartition(":")
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:  # the latter of a name with an empty or overlong part
        log.info("Worker target %s cannot be looked up: %s", target, error)
        return []
    return [f"[{address[0]}]:{port}" if ":" in str(address[0]) else f"{address[0]}:{port}" for *_, address in found]
