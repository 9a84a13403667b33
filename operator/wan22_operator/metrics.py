"""The operator's metrics, for Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from wan22.metrics_server import process_metrics
from wan22_operator.names import PoolKey

BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Metrics:
    """Counters and gauges, by pool where there are few of them."""

    def __init__(self) -> None:
        self.registry: CollectorRegistry = process_metrics()
        self._rounds = Histogram(
            "wan22_operator_round_seconds", "Of one round of one pool", buckets=BUCKETS, registry=self.registry
        )
        self._failures = Counter(
            "wan22_operator_round_failures", "Rounds that failed, by reason", ["reason"], registry=self.registry
        )
        self._pools = Gauge("wan22_operator_pools", "Pools that are looked after", registry=self.registry)
        self._desired = Gauge(
            "wan22_operator_desired_workers", "Workers wanted", ["namespace", "pool"], registry=self.registry
        )
        self._workers = Gauge(
            "wan22_operator_workers", "Workers by state", ["namespace", "pool", "state"], registry=self.registry
        )
        self._leader = Gauge("wan22_operator_leader", "1 while it holds the Lease", registry=self.registry)
        self._known: dict[PoolKey, set[str]] = {}

    def round_ended(self, key: PoolKey, seconds: float) -> None:
        """A round was done."""
        self._rounds.observe(seconds)
        self._known.setdefault(key, set())
        self._pools.set(len(self._known))

    def round_failed(self, reason: str) -> None:
        """A round was not done to its end."""
        self._failures.labels(reason).inc()

    def scaled(self, key: PoolKey, desired: int | None, states: dict[str, int]) -> None:
        """What a pool has and should have."""
        self._desired.labels(key.namespace, key.name).set(desired or 0)
        known = self._known.setdefault(key, set())
        known |= states.keys()
        for state in known:
            self._workers.labels(key.namespace, key.name, state).set(states.get(state, 0))

    def leads(self, leader: bool) -> None:  # noqa: FBT001
        """Whether it holds the Lease."""
        self._leader.set(leader)

    def forget(self, key: PoolKey) -> None:
        """A pool is gone."""
        states = self._known.pop(key, set())
        self._pools.set(len(self._known))
        for state in states:
            self._workers.remove(key.namespace, key.name, state)
        if states:
            self._desired.remove(key.namespace, key.name)
