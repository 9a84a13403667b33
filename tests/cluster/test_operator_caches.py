"""The operator with node caches: models lie on nodes before workers are there, and workers go where they lie."""

from __future__ import annotations

from typing import Any

import pytest

from wan22_testing.process_kubelet.images import Image
from wan22_testing.process_kubelet.node import NodeSpec
from wan22_testing.service_process import ServiceProcess

from .operated import MODEL, SIMULATED, Operated, until

pytestmark = pytest.mark.asyncio(loop_scope="module")
NAMESPACE = "operator-caches"
SIDES = ("left", "right")
NODES = [NodeSpec(side, gpus=2, labels={"side": side}) for side in SIDES]
SETTINGS: dict[str, object] = {}
LABELS = {"app.kubernetes.io/part-of": "wan22", "app.kubernetes.io/component": "node-cache"}
IMAGES = {
    "wan22/worker": Image((*SIMULATED, "--load-seconds", "0.5")),
    "wan22/node-cache": Image(("python", "-m", "wan22_registry.node_cache"), {"WAN22_CACHE_HOST": "{pod_ip}"}),
}


@pytest.fixture(scope="module")
def cached(operated: Operated, operator: ServiceProcess) -> Operated:
    """With a cache on each node."""
    kubectl = operated.kubectl
    kubectl("wait", "--for=create", "serviceaccount/default", *operated.inside, "--timeout=60s")
    for node in SIDES:
        kubectl.apply(claim(node))
        kubectl.apply(cache(node, operated.installation.registry.address))
    kubectl("wait", "--for=condition=Ready", "pods", "--all", *operated.inside, "--timeout=60s")
    return operated


def claim(node: str) -> dict[str, Any]:
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": f"cache-{node}", "namespace": NAMESPACE},
        "spec": spec,
    }


def cache(node: str, registry: str) -> dict[str, Any]:
    container = {
        "name": "cache",
        "image": "wan22/node-cache:1",
        "args": ["--root=/var/cache/wan22", f"--registry={registry}"],
        "readinessProbe": {"grpc": {"port": 51053, "service": "ready"}, "periodSeconds": 1},
        "volumeMounts": [{"name": "cache", "mountPath": "/var/cache/wan22"}],
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": f"cache-{node}", "namespace": NAMESPACE, "labels": LABELS},
        "spec": {
            "containers": [container],
            "nodeSelector": {"side": node},
            "volumes": [{"name": "cache", "persistentVolumeClaim": {"claimName": f"cache-{node}"}}],
        },
    }


def resource(kind: str, name: str, **spec: Any) -> dict[str, Any]:
    meta = {"name": name, "namespace": NAMESPACE}
    return {"apiVersion": "wan22.dev/v1alpha1", "kind": kind, "metadata": meta, "spec": {"model": MODEL, **spec}}


async def test_a_model_lies_where_it_should_and_a_pool_prefers_the_nodes_that_hold_it(
    cached: Operated,
) -> None:
    kubectl = cached.kubectl

    def status(kind: str, name: str) -> Any:
        return kubectl.get(kind, name, "--namespace", NAMESPACE).get("status", {})

    kubectl.apply(resource("WanModel", "tiny", nodeSelector={"side": "right"}, pinned=True))
    held = await until(lambda: status("wanmodel", "tiny"), lambda found: found.get("nodesPresent") == 1)
    assert [(node["name"], node["state"]) for node in held["nodes"]] == [("right", "Present")]
    assert held["sizeBytes"] > 0
    scaling = {"minReplicas": 3, "maxReplicas": 3}
    kubectl.apply(resource("WanPool", "three", scaling=scaling, engine={"gpusPerWorker": 1}))
    ready = await until(lambda: status("wanpool", "three"), lambda found: found.get("readyReplicas") == 3, 60)
    where = [(worker["node"], worker["claim"]) for worker in ready["workers"]]
    assert where == [("right", "cache-right"), ("right", "cache-right"), ("left", "cache-left")]
    assert all(load["cached"] for load in ready["loads"])

    kubectl("delete", "wanpool", "three", "--namespace", NAMESPACE)
    kubectl("delete", "wanmodel", "tiny", "--namespace", NAMESPACE)
    kubectl.apply(resource("WanModel", "absent", model=f"{MODEL}:fp8"))
    waits = await until(lambda: status("wanmodel", "absent"), lambda found: found.get("conditions"))
    assert waits["conditions"][0]["message"].startswith(f"Waiting for model {MODEL}:fp8: no such tag.")
