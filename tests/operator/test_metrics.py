from __future__ import annotations

from wan22_operator.metrics import Metrics

from .observing import KEY


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(f"wan22_operator_{name}", labels)


def test_a_state_that_no_worker_has_any_more_is_zero_and_a_pool_that_is_gone_has_none() -> None:
    metrics = Metrics()
    pool = {"namespace": KEY.namespace, "pool": KEY.name}
    metrics.round_ended("WanPool", KEY, 0.1)
    metrics.scaled(KEY, 2, {"Loading": 2})
    metrics.scaled(KEY, 2, {"Idle": 2})
    assert value(metrics, "workers", **pool, state="Loading") == 0
    assert value(metrics, "workers", **pool, state="Idle") == 2
    assert value(metrics, "desired_workers", **pool) == 2
    metrics.forget("WanModel", KEY)  # a model of the same name
    assert value(metrics, "pools") == 1
    metrics.forget("WanPool", KEY)
    assert value(metrics, "pools") == 0
    assert value(metrics, "workers", **pool, state="Idle") is None
    assert value(metrics, "desired_workers", **pool) is None


def test_calls_of_the_kubernetes_api_are_counted_by_what_came_of_them() -> None:
    metrics = Metrics()
    for code in (200, 200, 0):
        metrics.requested("GET", code)
    assert value(metrics, "requests_total", method="GET", code="200") == 2
    assert value(metrics, "requests_total", method="GET", code="0") == 1
