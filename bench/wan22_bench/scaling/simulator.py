"""Discrete events: generations arrive, workers load, serve and leave, and a policy says how many there are."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from math import inf
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from wan22_bench.scaling.trace import Trace

LOADS = 4096
"""Different loads of a run; more begin anew."""


class State(Enum):
    """What a worker does."""

    LOADING = "loading"
    IDLE = "idle"
    BUSY = "busy"


@dataclass(slots=True, eq=False)
class SimulatedWorker:
    """One worker, from its pod's creation to its end."""

    number: int
    created: float
    load_seconds: float
    state: State = State.LOADING
    since: float = 0.0
    """When the state began."""
    ready_time: float = inf
    leaving: bool = False
    """Gets no new generation; gone when the running one is done or the grace ends."""
    job: int = -1
    started: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Setup:
    """The world that all policies live in."""

    load_seconds: float
    """From a pod's creation to a worker that takes generations."""
    max_workers: int = 32
    objective_seconds: float = 120.0
    """A generation should start within this."""
    stop_seconds: float = 2.0
    """From the decision to remove an idle worker to its GPU being free."""
    load_spread: float = 0.1
    """Standard deviation of a load's logarithm."""
    prediction_spread: float = 0.1
    """Standard deviation of the logarithm of predicted over true seconds."""
    seed: int = 1


@dataclass(slots=True)
class Change:
    """What a policy wants done now."""

    start: int = 0
    stop: Sequence[SimulatedWorker] = ()
    grace_seconds: float = 600.0
    """How long a busy worker that is stopped may go on; what it runs then starts anew on another."""


class Policy(Protocol):
    """Decides at every `period`, and at every change of the fleet if it is `eager`."""

    period: float
    eager: bool

    def decide(self, fleet: Simulation, /) -> Change:
        """What to do now."""

    def may_sleep(self, fleet: Simulation, /) -> bool:
        """Whether nothing would change until the next arrival; asked while there are neither workers nor work."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of a run."""

    waits: NDArray[np.float64]
    """Seconds from arrival to (last) start, by generation."""
    gpu_seconds: float
    """Of all workers, from creation until the GPU is free."""
    useful_seconds: float
    loading_seconds: float
    loads: int
    stops: int
    flaps: int
    """Starts within a load time of a removal although nothing arrived in between: a change of mind without news."""
    regrets: int
    """Starts within a load time of a removal, for whatever reason: to keep that worker would have cost less."""
    killed: int
    """Generations cut off by the end of a worker's grace."""
    peak_workers: int
    timeline: NDArray[np.float64]
    """Rows of time, workers, outstanding generations, at each change."""

    def share_within(self, seconds: float) -> float:
        """Of the generations, those that started in time."""
        return float((self.waits <= seconds).mean()) if len(self.waits) else 1.0

    @property
    def gpu_hours(self) -> float:
        """Of all workers."""
        return self.gpu_seconds / 3600


def load_factors(generations: int, setup: Setup) -> NDArray[np.float64]:
    """How long each worker that is started loads, in `load_seconds`; in a trace of so many generations."""
    rng = np.random.default_rng(setup.seed)
    rng.normal(size=generations)  # the errors of predictions
    return np.exp(rng.normal(0.0, setup.load_spread, LOADS))


class Simulation:
    """One run; policies read its public fields."""

    def __init__(
        self, trace: Trace, setup: Setup, policy: Policy, *, horizon: float = 0.0, timeline: bool = False
    ) -> None:
        self.setup = setup
        self.arrivals: list[float] = trace.arrivals.tolist()
        self.durations: list[float] = trace.seconds.tolist()
        errors = np.exp(np.random.default_rng(setup.seed).normal(0.0, setup.prediction_spread, len(trace)))
        self.predicted: list[float] = (trace.seconds * errors).tolist()
        self.now = 0.0
        self.queue: deque[int] = deque()
        self.workers: dict[int, SimulatedWorker] = {}
        """All whose GPU is not free yet, by number."""
        self.arrived = 0
        self.outstanding = 0
        self.outstanding_integral = 0.0
        """Of the outstanding generations over time, up to `now`."""
        self.load_times: tuple[float, ...] = ()
        """Seconds of the last 20 loads."""
        self._policy = policy
        self._loads: list[float] = load_factors(len(trace), setup).tolist()
        self._horizon = horizon
        self._events: list[tuple[float, int, int, int]] = []
        self._sequence = 0
        self._waits = np.zeros(len(trace))
        self._idle: list[SimulatedWorker] = []
        self._count = self._stops = self._flaps = self._regrets = self._killed = self._peak = 0
        self._gpu = self._loading = 0.0
        self._recent_stops: deque[float] = deque()
        self._stops_without_news: deque[float] = deque()
        """Of those, the ones after which nothing has arrived."""
        self._timeline: list[tuple[float, int, int]] | None = [] if timeline else None

    @property
    def staying(self) -> list[SimulatedWorker]:
        """Workers that are not leaving, oldest first."""
        return [worker for worker in self.workers.values() if not worker.leaving]

    @property
    def next_load_seconds(self) -> float:
        """How long the next worker that is started will load: for who may know the future."""
        return self.setup.load_seconds * float(self._loads[self._count % len(self._loads)])

    def run(self) -> Outcome:
        """Plays the trace to its end, and on until all is done and the horizon reached."""
        policy, tick = self._policy, 0.0
        while True:
            arrival = self.arrivals[self.arrived] if self.arrived < len(self.arrivals) else inf
            if not self.workers and not self.outstanding and policy.may_sleep(self):
                if arrival == inf:
                    break
                if tick < arrival:
                    tick += -(-(arrival - tick) // policy.period) * policy.period
            elif arrival == inf and not self.outstanding and self.now >= self._horizon:
                break
            self._advance(min(arrival, self._events[0][0] if self._events else inf, tick))
            changed = self._take_in()
            if tick <= self.now or (changed and policy.eager):
                self._apply(policy.decide(self))
            if tick <= self.now:
                tick += policy.period
            if self._timeline is not None:
                self._timeline.append((self.now, len(self.workers), self.outstanding))
        for worker in self.workers.values():
            self._account(worker)
        return self._outcome()

    def _advance(self, time: float) -> None:
        self.outstanding_integral += self.outstanding * (time - self.now)
        self.now = time

    def _take_in(self) -> bool:
        """All that happens at this moment; whether anything did."""
        changed = False
        while self.arrived < len(self.arrivals) and self.arrivals[self.arrived] <= self.now:
            self.queue.append(self.arrived)
            self.arrived += 1
            self.outstanding += 1
            self._stops_without_news.clear()
            changed = True
        while self._events and self._events[0][0] <= self.now:
            _, _, kind, number = heapq.heappop(self._events)
            changed |= self._handle(kind, number)
        if changed:
            self._dispatch()
        return changed

    def _handle(self, kind: int, number: int) -> bool:
        worker = self.workers.get(number)
        if worker is None:
            return False
        if kind == _READY:
            if worker.state is not State.LOADING or worker.leaving:
                return False
            self._loading += self.now - worker.created
            worker.ready_time = self.now
            self.load_times = (*self.load_times[-19:], worker.load_seconds)
            self._rest(worker)
            return True
        if kind == _DONE:
            if worker.state is not State.BUSY:
                return False
            self.outstanding -= 1
            worker.job = -1
            if worker.leaving:
                self._gone(worker)
            else:
                self._rest(worker)
            return True
        if worker.state is State.BUSY:  # its grace is over
            self._killed += 1
            self.queue.appendleft(worker.job)
        elif worker.state is State.LOADING:
            self._loading += self.now - worker.created
        self._gone(worker)
        return True

    def _rest(self, worker: SimulatedWorker) -> None:
        worker.state, worker.since = State.IDLE, self.now
        self._idle.append(worker)

    def _gone(self, worker: SimulatedWorker) -> None:
        self._account(worker)
        del self.workers[worker.number]

    def _account(self, worker: SimulatedWorker) -> None:
        self._gpu += self.now - worker.created

    def _dispatch(self) -> None:
        """First come, first served, to the worker that became idle last: the others stay removable."""
        while self.queue and self._idle:
            worker = self._idle.pop()
            if worker.leaving or worker.state is not State.IDLE:
                continue
            job = self.queue.popleft()
            self._waits[job] = self.now - self.arrivals[job]
            worker.state, worker.since, worker.job, worker.started = State.BUSY, self.now, job, self.now
            self._push(self.now + self.durations[job], _DONE, worker.number)

    def _push(self, time: float, kind: int, number: int) -> None:
        self._sequence += 1
        heapq.heappush(self._events, (time, self._sequence, kind, number))

    def _apply(self, change: Change) -> None:
        for worker in change.stop:
            worker.leaving = True
            self._stops += 1
            self._recent_stops.append(self.now)
            self._stops_without_news.append(self.now)
            wait = change.grace_seconds if worker.state is State.BUSY else self.setup.stop_seconds
            self._push(self.now + wait, _END, worker.number)
        for _ in range(min(change.start, self.setup.max_workers - len(self.workers))):
            load = self.next_load_seconds
            self.workers[self._count] = SimulatedWorker(self._count, self.now, load, since=self.now)
            self._push(self.now + load, _READY, self._count)
            self._count += 1
            self._regrets += self._follows(self._recent_stops)
            self._flaps += self._follows(self._stops_without_news)
        self._peak = max(self._peak, len(self.workers))

    def _follows(self, stops: deque[float]) -> bool:
        """Whether a start now follows one of these removals within a load time; each is counted once."""
        while stops and stops[0] < self.now - self.setup.load_seconds:
            stops.popleft()
        if stops:
            stops.popleft()
            return True
        return False

    def _outcome(self) -> Outcome:
        return Outcome(
            waits=self._waits,
            gpu_seconds=self._gpu,
            useful_seconds=sum(self.durations),
            loading_seconds=self._loading,
            loads=self._count,
            stops=self._stops,
            flaps=self._flaps,
            regrets=self._regrets,
            killed=self._killed,
            peak_workers=self._peak,
            timeline=np.array(self._timeline or np.zeros((0, 3))),
        )


_READY, _DONE, _END = range(3)
