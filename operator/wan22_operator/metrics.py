"""The operator's metrics, for Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from wan22.metrics_server import process_metrics
from wan22_operator.names import PoolKey
from wan22_operator.resources import WAN_MODEL, WAN_POOL

BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Metrics:
    """Counters and gauges, by pool where there are few of them."""

    def __init__(self) -> None:
        self.registry: CollectorRegistry = process_metrics()
        self._rounds = Histogram(
            "wan22_operator_round_seconds", "Of one round", buckets=BUCKETS, registry=self.registry
        )
        self._failures = Counter(
            "wan22_operator_round_failures", "Rounds that failed, by reason", ["reason"], registry=self.registry
        )
        self._requests = Counter(
            "wan22_operator_requests",
            "Calls of the Kubernetes API by method and the answer's code, 0 without one; its watches left out",
            ["method", "code"],
            registry=self.registry,
        )
        self._counts = {
            WAN_POOL.kind: Gauge("wan22_operator_pools", "WanPools that are looked after", registry=self.registry),
            WAN_MODEL.kind: Gauge("wan22_operator_models", "WanModels that are looked after", registry=self.registry),
        }
        self._desired = Gauge(
            "wan22_operator_desired_workers", "Workers wanted", ["namespace", "pool"], registry=self.registry
        )
        self._workers = Gauge(
            "wan22_operator_workers", "Workers by state", ["namespace", "pool", "state"], registry=self.registry
        )
        self._leader = Gauge("wan22_operator_leader", "1 while it holds the Lease", registry=self.registry)
        self._looked_after: dict[str, set[PoolKey]] = {}
        self._states: dict[PoolKey, set[str]] = {}

    def round_ended(self, kind: str, key: PoolKey, seconds: float) -> None:
        """A round was done."""
        self._rounds.observe(seconds)
        keys = self._looked_after.setdefault(kind, set())
        keys.add(key)
        self._counts[kind].set(len(keys))

    def requested(self, method: str, code: int) -> None:
        """The Kubernetes API was called."""
        self._requests.labels(method, code).inc()

    def round_failed(self, reason: str) -> None:
        """A round was not done to its end."""
        self._failures.labels(reason).inc()

    def scaled(self, key: PoolKey, desired: int | None, states: dict[str, int]) -> None:
        """What a pool has and should have."""
        self._desired.labels(key.namespace, key.name).set(desired or 0)
        known = self._states.setdefault(key, set())
        known.update(states)
        for state in known:
            self._workers.labels(key.namespace, key.name, state).set(states.get(state, 0))

    def leads(self, leader: bool) -> None:  # noqa: FBT001
        """Whether it holds the Lease."""
        self._leader.set(leader)

    def forget(self, kind: str, key: PoolKey) -> None:
        """A resource is gone."""
        keys = self._looked_after.setdefault(kind, set())
        keys.discard(key)
        self._counts[kind].set(len(keys))
        if kind == WAN_POOL.kind and (states := self._states.pop(key, None)) is not None:
            self._desired.remove(key.namespace, key.name)
            for state in states:
                self._workers.remove(key.namespace, key.name, state)
