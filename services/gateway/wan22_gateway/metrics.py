"""What the gateway tells Prometheus of itself. No label is a tenant, a generation or a worker: they have no end."""

from __future__ import annotations

from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Histogram

from wan22_gateway.store.facts import Accepted, AttemptLost, Ended, Fact, Started, Written

CALL_SECONDS = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0, 600.0)


WRITE_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 1.0, 5.0)
WORK_SECONDS = (1.0, 5.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1200.0, 2400.0, 3600.0, 7200.0, 21600.0)
OF_GENERATION = ("variant", "pool")


class GatewayMetrics:
    """Counters and histograms of what this process has done: over replicas they add up."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry

        def counter(name: str, text: str, labels: Sequence[str]) -> Counter:
            return Counter(f"wan22_gateway_{name}", text, labels, registry=registry)

        def histogram(name: str, text: str, labels: Sequence[str], buckets: Sequence[float]) -> Histogram:
            return Histogram(f"wan22_gateway_{name}", text, labels, buckets=buckets, registry=registry)

        self._accepted = counter("generations_accepted_total", "Generations queued.", OF_GENERATION)
        self._ended = counter(
            "generations_ended_total", "Generations that reached a final state.", (*OF_GENERATION, "state")
        )
        self._lost = counter(
            "attempts_lost_total",
            "Attempts that ended with their worker; it is queued again.",
            OF_GENERATION,
        )
        self._waits = histogram(
            "queue_wait_seconds", "From acceptance to the start of the first attempt.", OF_GENERATION, WORK_SECONDS
        )
        self._runs = histogram(
            "run_seconds", "From the first start to the final state.", (*OF_GENERATION, "state"), WORK_SECONDS
        )
        self._writes = histogram(
            "store_write_seconds", "From asking for a write to its answer, the commit included.", (), WRITE_SECONDS
        )
        self._failed_writes = counter("store_write_failures_total", "Writes that raised an error.", ())
        self._rpc = counter("grpc_calls_total", "RPCs ended, by canonical code.", ("method", "code"))
        self._rpc_seconds = histogram(
            "grpc_call_seconds", "Until an RPC ended; for streams their whole life.", ("method",), CALL_SECONDS
        )
        self._http = counter(
            "http_requests_total", "HTTP requests answered, by route as declared.", ("route", "method", "code")
        )
        self._http_seconds = histogram(
            "http_request_seconds", "Until an answer began.", ("route", "method"), CALL_SECONDS
        )

    def stored(self, fact: Fact) -> None:
        """Counts what the store has told."""
        if isinstance(fact, Written):
            self._writes.observe(fact.seconds)
            self._failed_writes.inc(fact.failed)
            return
        labels = (fact.variant, fact.pool)
        if isinstance(fact, Accepted):
            self._accepted.labels(*labels).inc(fact.count)
        elif isinstance(fact, Started):
            self._waits.labels(*labels).observe(fact.waited)
        elif isinstance(fact, AttemptLost):
            self._lost.labels(*labels).inc()
        elif isinstance(fact, Ended):
            self._ended.labels(*labels, fact.state).inc()
            if fact.ran is not None:
                self._runs.labels(*labels, fact.state).observe(fact.ran)

    def rpc(self, method: str, code: str, seconds: float) -> None:
        """Counts an RPC."""
        self._rpc.labels(method, code).inc()
        self._rpc_seconds.labels(method).observe(seconds)

    def http(self, route: str, method: str, status: int, seconds: float) -> None:
        """Counts an HTTP request."""
        self._http.labels(route, method, str(status)).inc()
        self._http_seconds.labels(route, method).observe(seconds)
