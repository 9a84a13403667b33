"""The cluster itself: what it offers to wan22, and that its nodes crash and come back."""

from __future__ import annotations

from typing import Any

import pytest

from wan22_testing.cluster.kubectl import Kubectl
from wan22_testing.nodes.cluster import GPUS_PER_NODE, NodeCluster
from wan22_testing.nodes.containerd import PAUSE_IMAGE

pytestmark = [pytest.mark.node, pytest.mark.timeout(1800)]


def stateful_set(namespace: str) -> dict[str, Any]:
    """Pods that do nothing, each with a volume, one a node."""
    labels = {"app": "idle"}
    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    pod = {
        "terminationGracePeriodSeconds": 0,
        "containers": [
            {
                "name": "idle",
                "image": PAUSE_IMAGE,
                "imagePullPolicy": "Never",
                "resources": {"limits": {"nvidia.com/gpu": 1}},
                "volumeMounts": [{"name": "data", "mountPath": "/data"}],
            }
        ],
        "topologySpreadConstraints": [
            {
                "maxSkew": 1,
                "topologyKey": "kubernetes.io/hostname",
                "whenUnsatisfiable": "DoNotSchedule",
                "labelSelector": {"matchLabels": labels},
            }
        ],
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": "idle", "namespace": namespace},
        "spec": {
            "replicas": 2,
            "serviceName": "idle",
            "podManagementPolicy": "Parallel",
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": pod},
            "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": claim}],
        },
    }


def test_both_nodes_are_ready_and_offer_gpus(nodes: NodeCluster, kubectl: Kubectl) -> None:
    found = {node["metadata"]["name"]: node["status"] for node in kubectl.get("nodes")["items"]}
    assert {name: status["allocatable"]["nvidia.com/gpu"] for name, status in found.items()} == {
        "node1": str(GPUS_PER_NODE),
        "node2": str(GPUS_PER_NODE),
    }


def test_a_crashed_node_is_known_as_such_and_runs_its_pods_again_when_it_is_back(
    nodes: NodeCluster, kubectl: Kubectl
) -> None:
    namespace = "idle"
    kubectl("create", "namespace", namespace)
    kubectl.apply(stateful_set(namespace))
    rollout = ("rollout", "status", "statefulset/idle", f"--namespace={namespace}", "--timeout=580s")
    kubectl(*rollout)
    nodes.crash("node2")
    kubectl("wait", "--for=condition=Ready=Unknown", "node/node2", "--timeout=580s")
    nodes.boot("node2")
    kubectl("wait", "--for=condition=Ready", "node/node2", "--timeout=580s")
    kubectl(*rollout)
    pods = kubectl.get("pods", f"--namespace={namespace}")["items"]
    assert {pod["spec"]["nodeName"] for pod in pods} == {"node1", "node2"}
    kubectl("delete", "namespace", namespace, "--timeout=580s")
