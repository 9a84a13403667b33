"""What the gateway tells Prometheus of itself. No label is a tenant, a generation or a worker: they have no end."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Histogram

CALL_SECONDS = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0, 600.0)


class GatewayMetrics:
    """Counters and histograms of what this process has done."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self._http = Counter(
            "wan22_gateway_http_requests_total",
            "HTTP requests answered, by route as it is declared.",
            ["route", "method", "code"],
            registry=registry,
        )
        self._http_seconds = Histogram(
            "wan22_gateway_http_request_seconds",
            "Seconds until an answer began.",
            ["route", "method"],
            buckets=CALL_SECONDS,
            registry=registry,
        )

    def http(self, route: str, method: str, status: int, seconds: float) -> None:
        """Counts an HTTP request."""
        self._http.labels(route, method, str(status)).inc()
        self._http_seconds.labels(route, method).observe(seconds)
