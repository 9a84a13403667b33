from __future__ import annotations

import urllib.error
import urllib.request

import pytest
from prometheus_client import Counter
from prometheus_client.parser import text_string_to_metric_families

from wan22.errors import FailedPrecondition
from wan22.metrics_server import MetricsServer, process_metrics


def get(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


@pytest.fixture
def states() -> dict[str, bool]:
    return {"live": True, "ready": False}


def test_metrics_are_prometheus_text_with_those_of_the_process(states: dict[str, bool]) -> None:
    metrics = process_metrics()
    Counter("wan22_cats_total", "Cats.", ["colour"], registry=metrics).labels("black").inc(3)
    with MetricsServer(metrics, host="127.0.0.1", port=0, live=lambda: True, ready=lambda: True) as server:
        code, text = get(server.port, "/metrics")
    assert code == 200
    samples = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert samples["wan22_cats_total", "black"] == 3
    assert samples["process_resident_memory_bytes",] > 1_000_000


def test_health_and_readiness_are_what_the_process_says(states: dict[str, bool]) -> None:
    server = MetricsServer(
        process_metrics(), host="127.0.0.1", port=0, live=lambda: states["live"], ready=lambda: states["ready"]
    )
    with server:
        assert get(server.port, "/health") == (200, "live\n")
        assert get(server.port, "/ready") == (503, "not ready\n")
        states["ready"] = True
        assert get(server.port, "/ready") == (200, "ready\n")
        states["live"] = False  # a hung event loop is not ready either
        assert get(server.port, "/health") == (503, "not live\n")
        assert get(server.port, "/ready") == (503, "not ready\n")


def test_another_path_is_404_naming_those_there_are() -> None:
    with MetricsServer(process_metrics(), host="127.0.0.1", port=0, live=lambda: True, ready=lambda: True) as server:
        code, text = get(server.port, "/metric")
        assert (code, text) == (404, "'/metric' is not here: use /metrics, /health or /ready.\n")


def test_a_port_that_is_taken_is_said() -> None:
    def serve(port: int) -> MetricsServer:
        return MetricsServer(process_metrics(), host="127.0.0.1", port=port, live=lambda: True, ready=lambda: True)

    with serve(0) as first, pytest.raises(FailedPrecondition, match=f"HTTP port {first.port} of 127.0.0.1"):
        serve(first.port)
