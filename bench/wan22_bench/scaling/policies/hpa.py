"""The Horizontal Pod Autoscaler on a Deployment, scaling by an external metric.

Formula and rules as in kubernetes/kubernetes, pkg/controller/podautoscaler: `replica_calculator.go`
(GetExternalPerPodMetricReplicas) and `horizontal.go` (stabilizeRecommendationWithBehaviors,
convertDesiredReplicasWithBehaviorRate); the ReplicaSet's victims as in pkg/controller/controller_utils.go
(ActivePodsWithRanks).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from math import ceil, floor, log2

from wan22_bench.scaling.simulator import Change, SimulatedWorker, Simulation, State


@dataclass(frozen=True, kw_only=True)
class HpaSettings:
    """What a HorizontalPodAutoscaler says; defaults are Kubernetes' own."""

    metric: str = "outstanding"
    """queued: waiting generations; outstanding: waiting and running; seconds: predicted seconds of both."""
    target: float = 1.0
    """Average value a worker."""
    tolerance: float = 0.1
    down_window_seconds: float = 300.0
    up_window_seconds: float = 0.0
    up_percent: float = 100.0
    up_pods: int = 4
    down_percent: float = 100.0
    policy_period_seconds: float = 15.0
    min_replicas: int = 1
    grace_seconds: float = 600.0
    """How long a pod that is told to end may still run."""
    sync_seconds: float = 15.0
    """The controller manager's."""


class Hpa:
    """Decides at every sync of the controller manager, and at nothing else."""

    eager = False

    def __init__(self, settings: HpaSettings) -> None:
        self.settings = settings
        self.period = settings.sync_seconds
        self.replicas = settings.min_replicas
        self._begun = False
        self._recommendations: deque[tuple[float, int]] = deque()
        self._ups: deque[tuple[float, int]] = deque()
        self._downs: deque[tuple[float, int]] = deque()

    def may_sleep(self, _fleet: Simulation) -> bool:
        """Never: there is always a replica."""
        return False

    def decide(self, fleet: Simulation) -> Change:
        """One sync of the controller."""
        self.replicas = self.recommend(fleet.now, metric_value(fleet, self.settings.metric), fleet.setup.max_workers)
        return reach(fleet, self.replicas, self.settings)

    def recommend(self, now: float, value: float, max_replicas: int) -> int:
        """The replicas that the controller would set, from those that it has set before and the metric's value."""
        settings, current = self.settings, self.replicas
        desired = current
        if abs(1.0 - value / (settings.target * current)) > settings.tolerance:
            desired = ceil(value / settings.target - 1e-9)
        desired = self._stabilise(now, current, desired)
        wanted = min(max(desired, settings.min_replicas), max_replicas)
        limited = self._limit(now, current, wanted)
        if limited > current:
            self._ups.append((now, limited - current))
        elif limited < current:
            self._downs.append((now, current - limited))
        return limited

    def _stabilise(self, now: float, current: int, desired: int) -> int:
        """Keeps within what was recommended during the windows; the replicas found at first count as one of those."""
        settings, recommendations = self.settings, self._recommendations
        if not self._begun:
            self._begun = True
            recommendations.append((now, current))
        longest = max(settings.down_window_seconds, settings.up_window_seconds)
        while recommendations and recommendations[0][0] <= now - longest:
            recommendations.popleft()
        most = max([desired, *(n for time, n in recommendations if time > now - settings.down_window_seconds)])
        least = min([desired, *(n for time, n in recommendations if time > now - settings.up_window_seconds)])
        recommendations.append((now, desired))
        return min(max(current, least), most)

    def _limit(self, now: float, current: int, wanted: int) -> int:
        settings = self.settings
        for changes in (self._ups, self._downs):
            while changes and changes[0][0] <= now - settings.policy_period_seconds:
                changes.popleft()
        added, removed = sum(count for _, count in self._ups), sum(count for _, count in self._downs)
        if wanted > current:
            start = current - added + removed
            return min(wanted, max(current, start + settings.up_pods, ceil(start * (1 + settings.up_percent / 100))))
        start = current + removed - added
        return max(wanted, min(current, floor(start * (1 - settings.down_percent / 100))))


def metric_value(fleet: Simulation, metric: str) -> float:
    """The external metric, summed over its series."""
    if metric == "queued":
        return len(fleet.queue)
    if metric == "outstanding":
        return fleet.outstanding
    running = sum(
        max(0.0, fleet.predicted[worker.job] - (fleet.now - worker.started))
        for worker in fleet.workers.values()
        if worker.state is State.BUSY
    )
    return running + sum(fleet.predicted[job] for job in fleet.queue)


def reach(fleet: Simulation, replicas: int, settings: HpaSettings) -> Change:
    """What the ReplicaSet does to have that many pods; pods that end do not count."""
    staying = fleet.staying
    surplus = len(staying) - replicas
    if surplus <= 0:
        return Change(start=-surplus)
    staying.sort(key=lambda worker: victim_rank(worker, fleet.now))
    return Change(stop=staying[:surplus], grace_seconds=settings.grace_seconds)


def victim_rank(worker: SimulatedWorker, now: float) -> tuple[int, int, int]:
    """Who goes first in a ReplicaSet: not ready; younger, to a power of two of nanoseconds; then by UID, at random."""
    ready = worker.state is not State.LOADING
    age = now - (worker.ready_time if ready else worker.created)
    return int(ready), floor(log2(age * 1e9)) if age > 0 else -1, worker.number * 2_654_435_761 % 4_294_967_296


def named_victims(fleet: Simulation, surplus: int) -> list[SimulatedWorker]:
    """Our choice: the longest idle, then the newest loading, never a busy one."""
    staying = fleet.staying
    idle = sorted((w for w in staying if w.state is State.IDLE), key=lambda worker: worker.since)
    loading = sorted((w for w in staying if w.state is State.LOADING), key=lambda worker: -worker.created)
    return (idle + loading)[:surplus]
