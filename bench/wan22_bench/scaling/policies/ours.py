"""The operator's own decision, fed with what the gateway would say."""

from __future__ import annotations

from bisect import bisect_right

from wan22_bench.scaling.simulator import Change, SimulatedWorker, Simulation, State
from wan22_operator.scaling.decision import decide
from wan22_operator.scaling.history import History
from wan22_operator.scaling.snapshot import Demand, Limits, Queued, Snapshot, Worker, WorkerState
from wan22_operator.scaling.tuning import Tuning

_STATES = {State.LOADING: WorkerState.LOADING, State.IDLE: WorkerState.IDLE, State.BUSY: WorkerState.BUSY}


class Ours:
    """Decides at every change and every 15 s, as the operator does."""

    period = 15.0
    eager = True

    def __init__(self, tuning: Tuning | None = None) -> None:
        self._tuning = tuning
        self._history = History()
        self._limits: Limits | None = None

    def may_sleep(self, _fleet: Simulation) -> bool:
        """Without workers only an arrival can change anything."""
        return True

    def decide(self, fleet: Simulation) -> Change:
        """One reconciliation."""
        decision = decide(self.snapshot(fleet), self._history, self._tuning)
        self._history = decision.history
        return Change(start=decision.start, stop=[fleet.workers[int(name)] for name in decision.remove])

    def snapshot(self, fleet: Simulation) -> Snapshot:
        """What the operator would see; the load times measured so far scatter around the true one."""
        now, setup = fleet.now, fleet.setup
        if self._limits is None:
            self._limits = Limits(maximum=setup.max_workers, objective_seconds=setup.objective_seconds)
        return Snapshot(
            now=now,
            limits=self._limits,
            demand=self._demand(fleet),
            workers=tuple(_worker(worker, fleet) for worker in fleet.workers.values()),
            workers_time=now,
            load_times=fleet.load_times,
        )

    def _demand(self, fleet: Simulation) -> Demand:
        minute, ten = (bisect_right(fleet.arrivals, fleet.now - seconds, 0, fleet.arrived) for seconds in (60.0, 600.0))
        recent, long = fleet.arrived - minute, fleet.arrived - ten
        return Demand(
            time=fleet.now,
            queued=tuple(Queued(1, fleet.predicted[job], fleet.arrivals[job]) for job in fleet.queue),
            arrivals_60s=recent,
            arrivals_10m=long,
            mean_seconds_60s=sum(fleet.predicted[minute : fleet.arrived]) / recent if recent else 0.0,
            mean_seconds_10m=sum(fleet.predicted[ten : fleet.arrived]) / long if long else 0.0,
        )


def _worker(worker: SimulatedWorker, fleet: Simulation) -> Worker:
    state = WorkerState.LEAVING if worker.leaving else _STATES[worker.state]
    busy = worker.state is State.BUSY
    return Worker(
        name=str(worker.number),
        state=state,
        since=worker.since,
        predicted_seconds=fleet.predicted[worker.job] if busy else 0.0,
    )
