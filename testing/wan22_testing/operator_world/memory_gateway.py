"""The gateway as the operator knows it, in memory: pools, workers, fences, and generations that run once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from google.protobuf.timestamp_pb2 import Timestamp

from wan22.errors import FailedPrecondition, NotFound, Reason
from wan22.v1 import inference_pb2, pool_pb2
from wan22_operator.gateway import DRAIN_LEASE_SECONDS, Gateway, PoolView
from wan22_testing.operator_world.faults import Faults

States = inference_pb2.Worker
SHORT_SECONDS, LONG_SECONDS = 60.0, 600.0
"""Over which arrivals are counted; a dead worker is remembered for the longer one."""


@dataclass(slots=True, eq=False)
class Work:
    """One generation."""

    pool: str
    created: float
    seconds: float
    ends: int = 0
    """How often it has succeeded."""
    lost: int = 0
    """Attempts that ended with their worker."""


@dataclass(slots=True, eq=False)
class Row:
    """A worker as the gateway has it."""

    name: str
    uid: str
    pool: str
    state: States.State.ValueType = States.LOADING
    alive: bool = True
    work: Work | None = None
    started: float = 0.0
    fenced_until: float = 0.0
    bytes_left: int = 0
    lost: float = 0.0
    """When it ceased to be alive."""


@dataclass(slots=True)
class _Pool:
    declared: pool_pb2.Pool
    queue: list[Work] = field(default_factory=list)
    arrivals: list[float] = field(default_factory=list)


class MemoryGateway(Gateway):
    """Each call may go wrong by `faults`; what it says may be old, from `silent_until` on not."""

    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__("memory:0", None, "")
        self.faults: Faults
        self.error = None
        self.silent_until = 0.0
        self.rows: dict[str, Row] = {}
        self.pools: dict[str, _Pool] = {}
        self._clock = clock
        self._said: dict[str, PoolView] = {}

    @property
    def views(self) -> Mapping[str, PoolView]:
        """As they are now, or were when it fell silent."""
        if self._clock() >= self.silent_until:
            self._said = {name: PoolView(self._view(pool), self._clock()) for name, pool in self.pools.items()}
        return self._said

    async def apply(self, pool: pool_pb2.Pool) -> None:
        """Keeps it as declared."""

        def done() -> None:
            if (known := self.pools.get(pool.name)) is None:
                self.pools[pool.name] = _Pool(pool)
            else:
                known.declared = pool

        await self.faults.call(done, of_gateway=True)

    async def drain(self, worker: str, *, claimed: bool) -> pool_pb2.PoolWorker:
        """Refuses, as the real one does, a worker that is not known, and unless `claimed` one that has a generation."""

        def done() -> pool_pb2.PoolWorker:
            row = self.rows.get(worker)
            if row is None:
                raise NotFound(f"{worker} is not known.")
            if row.work is not None and not claimed:
                text = f"{worker} has a generation: try again when it has ended."
                raise FailedPrecondition(text, reason=Reason.WORKER_CLAIMED)
            row.fenced_until = self._clock() + DRAIN_LEASE_SECONDS
            return self._worker(row)

        return await self.faults.call(done, of_gateway=True)

    def ask(self, pool: str, seconds: float) -> Work:
        """Queues a generation. The pool must be known."""
        work = Work(pool, self._clock(), seconds)
        self.pools[pool].queue.append(work)
        self.pools[pool].arrivals.append(work.created)
        return work

    def dispatch(self) -> None:
        """Gives idle workers that are not fenced what waits, and ends what is done."""
        now = self._clock()
        self.rows = {name: row for name, row in self.rows.items() if row.alive or now < row.lost + LONG_SECONDS}
        for row in self.rows.values():
            if row.work is not None and now >= row.started + row.work.seconds:
                row.work.ends += 1
                row.work, row.state = None, States.IDLE
            queue = self.pools[row.pool].queue
            if queue and row.alive and row.state == States.IDLE and now >= row.fenced_until:
                row.work, row.state, row.started = queue.pop(0), States.BUSY, now

    def lose(self, row: Row) -> None:
        """Its lease has lapsed, or its process ended: what it had is queued again, first."""
        row.alive, row.lost = False, self._clock()
        if row.work is not None:
            row.work.lost += 1
            self.pools[row.pool].queue.insert(0, row.work)
            row.work = None

    def _view(self, pool: _Pool) -> pool_pb2.Pool:
        said, now = pool_pb2.Pool(), self._clock()
        pool.arrivals = [time for time in pool.arrivals if time > now - LONG_SECONDS]
        said.CopyFrom(pool.declared)
        mine = [row for row in self.rows.values() if row.pool == said.name]
        said.workers.extend(self._worker(row) for row in mine)
        recent, long = sum(time > now - SHORT_SECONDS for time in pool.arrivals), len(pool.arrivals)
        mean = sum(work.seconds for work in pool.queue) / max(len(pool.queue), 1) or 30.0
        said.demand.CopyFrom(
            pool_pb2.Demand(
                queued=[
                    pool_pb2.DemandBucket(
                        count=1, predicted_seconds=work.seconds, oldest_create_time=_stamp(work.created)
                    )
                    for work in pool.queue
                ],
                running=[
                    pool_pb2.RunningWork(
                        worker=row.name, predicted_seconds=row.work.seconds, elapsed_seconds=now - row.started
                    )
                    for row in mine
                    if row.work is not None
                ],
                arrivals_60s=recent,
                mean_predicted_seconds_60s=mean if recent else 0.0,
                arrivals_10m=long,
                mean_predicted_seconds_10m=mean if long else 0.0,
                store_epoch="memory",
                as_of_time=_stamp(now),
                complete=True,
            )
        )
        return said

    def _worker(self, row: Row) -> pool_pb2.PoolWorker:
        said = pool_pb2.PoolWorker(
            name=row.name,
            uid=row.uid,
            pool=row.pool,
            state=row.state,
            bytes_left=row.bytes_left,
            alive=row.alive,
            generation="" if row.work is None else f"generations/{id(row.work)}",
            model_version=self.pools[row.pool].declared.model_version,
        )
        if row.fenced_until > self._clock():
            said.drain_expire_time.CopyFrom(_stamp(row.fenced_until))
        return said


def _stamp(seconds: float) -> Timestamp:
    made = Timestamp()
    made.FromMicroseconds(round(seconds * 1e6))
    return made
