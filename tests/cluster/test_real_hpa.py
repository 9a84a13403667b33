from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from threading import Event, Thread
from typing import Any

import numpy as np
import pytest

from wan22_bench.scaling.policies.hpa import Hpa, HpaSettings, metric_value
from wan22_bench.scaling.simulator import Change, Setup, Simulation
from wan22_bench.scaling.trace import Trace
from wan22_testing.cluster.control_plane import ControlPlane
from wan22_testing.cluster.external_metrics import HOST, ExternalMetrics
from wan22_testing.cluster.kubectl import Kubectl
from wan22_testing.cluster.programs import CONTROLLERS, Programs

METRIC, MOST = "outstanding", 12
SETTINGS = HpaSettings(
    metric=METRIC, sync_seconds=1.5, down_window_seconds=5.0, policy_period_seconds=2.0, up_pods=2, tolerance=0.1
)
"""No window or period ends near a sync, so that a slow machine changes nothing."""
GENERATIONS = [
    *[(0.0, 4.0), (0.2, 5.0), (3.2, 3.0)],
    *[(4.6 + 0.01 * index, 2.2 + index % 3) for index in range(14)],  # more than the policies let it follow at once
    *[(11.6, 2.0)] * 4,  # 12 for 11 workers: within the tolerance
]
SECONDS = 19.5

DEPLOYMENT: dict[str, Any] = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "workers", "namespace": "default"},
    "spec": {
        "replicas": 1,
        "selector": {"matchLabels": {"app": "workers"}},
        "template": {
            "metadata": {"labels": {"app": "workers"}},
            "spec": {"containers": [{"name": "worker", "image": "none"}]},
        },
    },
}
AUTOSCALER: dict[str, Any] = {
    "apiVersion": "autoscaling/v2",
    "kind": "HorizontalPodAutoscaler",
    "metadata": {"name": "workers", "namespace": "default"},
    "spec": {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "workers"},
        "minReplicas": 1,
        "maxReplicas": MOST,
        "metrics": [
            {
                "type": "External",
                "external": {"metric": {"name": METRIC}, "target": {"type": "AverageValue", "averageValue": "1"}},
            }
        ],
        "behavior": {
            "scaleUp": {
                "stabilizationWindowSeconds": 0,
                "policies": [
                    {"type": "Percent", "value": 100, "periodSeconds": 2},
                    {"type": "Pods", "value": 2, "periodSeconds": 2},
                ],
            },
            "scaleDown": {
                "stabilizationWindowSeconds": 5,
                "policies": [{"type": "Percent", "value": 100, "periodSeconds": 2}],
            },
        },
    },
}


class Recorded(Hpa):
    """The simulated controller, which writes down what it saw and decided."""

    def __init__(self, settings: HpaSettings) -> None:
        super().__init__(settings)
        self.seen: list[int] = []
        self.decided: list[int] = []

    def decide(self, fleet: Simulation) -> Change:
        self.seen.append(int(metric_value(fleet, METRIC)))
        change = super().decide(fleet)
        self.decided.append(self.replicas)
        return change


class Player:
    """Shows the real controller, at each sync, what the simulated one saw at the same, and looks what it decides."""

    def __init__(self, values: list[int]) -> None:
        self._values = values
        self.replicas = 1
        self.times: list[float] = []
        self.decided: list[int] = []
        self.over = Event()

    def value(self) -> int:
        """Called at each sync: by then the decision of the last one has been written."""
        index = len(self.times)
        if index:
            self.decided.append(self.replicas)
        self.times.append(time.monotonic())
        if index >= len(self._values):
            self.over.set()
        return self._values[min(index, len(self._values) - 1)]

    def follow(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.replicas = int(line)


@pytest.fixture(scope="module")
def control_plane(programs: Programs, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """One of its own, whose controller looks more often than every 15 s."""
    if not all(programs.has(name) for name in CONTROLLERS):
        pytest.skip(f"{' and '.join(CONTROLLERS)} are not beside the API server: run `make kube-bin`")
    flags = {"horizontal-pod-autoscaler-sync-period": "1500ms"}
    folder: Path = tmp_path_factory.mktemp("hpa")
    with ControlPlane(folder, programs, controller_manager=flags) as control_plane:
        yield control_plane


def simulated() -> Recorded:
    arrivals, seconds = np.array(GENERATIONS).T
    setup = Setup(load_seconds=1.0, load_spread=0.0, prediction_spread=0.0, max_workers=MOST, stop_seconds=0.1)
    policy = Recorded(SETTINGS)
    Simulation(Trace(arrivals, seconds), setup, policy, horizon=SECONDS).run()
    return policy


def play(kubectl: Kubectl, player: Player) -> None:
    shown = ("deployment", "workers", "--namespace=default", "--output=jsonpath={.spec.replicas}{'\\n'}")
    with kubectl.watch(*shown) as lines:
        watcher = Thread(target=player.follow, args=(lines,))
        watcher.start()
        kubectl.apply(AUTOSCALER)
        assert player.over.wait(3 * SECONDS)
    watcher.join()


def test_the_real_controller_decides_on_a_trace_as_the_simulated_one(control_plane: ControlPlane) -> None:
    kubectl, policy = control_plane.kubectl(), simulated()
    assert policy.decided == [1, 2, 2, 3, 4, 6, 8, 11, 11, 11, 11, 11, 7, 1]
    player = Player(policy.seen)
    with ExternalMetrics(control_plane.issue("external-metrics", hosts=[HOST]), METRIC, player.value) as metrics:
        metrics.register(kubectl)
        kubectl.apply(DEPLOYMENT)
        kubectl("wait", "--for=jsonpath={.status.replicas}=1", "deployment/workers", "--timeout=30s")
        play(kubectl, player)
    assert player.decided == policy.decided
