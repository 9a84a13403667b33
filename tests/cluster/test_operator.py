"""The operator as a process, on a real API server, with a real gateway and registry; no node runs its pods."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from wan22_testing.cluster.control_plane import ControlPlane
from wan22_testing.cluster.kubectl import Kubectl
from wan22_testing.installation import Installation
from wan22_testing.service_process import ServiceProcess
from wan22_testing.tiny_models import shared_folder

from .waiting import patience

pytestmark = pytest.mark.asyncio(loop_scope="module")
T2V = "t2v-a14b-tiny"
CRDS = Path(__file__).parents[2] / "helm/wan22/files/crds"
MODEL = "wan2.2-t2v-a14b-tiny"
NAMESPACE = "operator-tests"
IMAGE = "registry.example/wan22-worker:0.1.0"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def installation(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Installation]:
    async with Installation(tmp_path_factory.mktemp("installation")) as running:
        await running.push(T2V, shared_folder(T2V))
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def operator(
    kubectl: Kubectl, control_plane: ControlPlane, installation: Installation
) -> AsyncIterator[ServiceProcess]:
    kubectl("create", "namespace", NAMESPACE)
    process = ServiceProcess(
        "wan22_operator",
        installation.folder / "operator.log",
        serves=False,
        kubeconfig=control_plane.kubeconfig,
        namespaces=NAMESPACE,
        namespace=NAMESPACE,
        gateway=installation.gateway.address,
        registry=installation.registry.address,
        worker_image=IMAGE,
        worker_discovery="addresses",
        resync_seconds=2,
        resolve_seconds=1,
    )
    process.start()
    await process.until()
    yield process
    if process.running:
        process.kill()


def pool(name: str, model: str = MODEL, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "wan22.dev/v1alpha1",
        "kind": "WanPool",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"model": model, "engine": {"gpusPerWorker": 0}, "defaultForVariant": True, **spec},
    }


until = patience(30.0)


def condition(found: dict[str, Any], kind: str) -> dict[str, Any]:
    conditions: dict[str, dict[str, Any]] = {one["type"]: one for one in found.get("status", {}).get("conditions", [])}
    return conditions.get(kind, {"status": None, "reason": None, "message": ""})


class Namespace:
    """What tests look at."""

    def __init__(self, kubectl: Kubectl) -> None:
        self._kubectl = kubectl

    def pool(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self._kubectl.get("wanpool", name, "--namespace", NAMESPACE)
        return found

    def pods(self, pool: str) -> list[dict[str, Any]]:
        found = self._kubectl.get("pods", "--namespace", NAMESPACE, "--selector", f"wan22.dev/pool={pool}")
        pods: list[dict[str, Any]] = found["items"]
        return pods


@pytest.fixture
def namespace(kubectl: Kubectl) -> Namespace:
    return Namespace(kubectl)


async def test_a_pool_is_declared_before_any_worker_exists_and_grows_when_work_is_queued(
    kubectl: Kubectl, operator: ServiceProcess, installation: Installation, namespace: Namespace
) -> None:
    kubectl.apply(pool("grows", scaling={"maxReplicas": 2}))
    idle = await until(lambda: namespace.pool("grows"), lambda found: condition(found, "Ready")["reason"] == "Idle")
    assert condition(idle, "Declared")["status"] == "True"
    assert idle["status"]["variant"] == T2V
    assert namespace.pods("grows") == []
    async with installation.client() as client:
        await client.create(variant=T2V, prompt="a red circle", num_frames=5)
    (pod,) = await until(lambda: namespace.pods("grows"), bool)
    assert pod["metadata"]["name"] == "grows-0"
    assert pod["spec"]["containers"][0]["image"] == IMAGE
    grown = await until(lambda: namespace.pool("grows"), lambda found: found["status"]["workers"][0].get("uid"))
    assert grown["status"]["decision"]["replicas"] == 1
    assert "queued work (1" in grown["status"]["decision"]["reason"]
    inside = ("--namespace", NAMESPACE)
    assert "ScaledUp" in kubectl("events", "--for", "wanpool/grows", *inside)
    why = kubectl("get", "wanpool", "grows", *inside, "-o", "jsonpath={.status.decision.reason}")
    assert why == grown["status"]["decision"]["reason"]


async def test_a_missing_tag_is_said_and_the_pool_goes_on_when_it_is_there(
    kubectl: Kubectl, operator: ServiceProcess, namespace: Namespace
) -> None:
    kubectl.apply(pool("waits", f"{MODEL}:fp8"))
    found = await until(lambda: namespace.pool("waits"), lambda found: condition(found, "Ready")["status"] == "False")
    text = f"Waiting for model {MODEL}:fp8: no such tag."
    assert condition(found, "Ready")["message"].startswith(text)
    kubectl.apply(pool("waits", f"{MODEL}:latest"))
    await until(lambda: namespace.pool("waits"), lambda found: condition(found, "Ready")["reason"] == "Idle")


async def test_a_newer_crd_changes_nothing(kubectl: Kubectl, operator: ServiceProcess, namespace: Namespace) -> None:
    """A field that this operator does not know, with a default, and one of the status that somebody newer wrote."""
    kubectl.apply(pool("newer", scaling={"minReplicas": 1, "maxReplicas": 1}))
    (pod,) = await until(lambda: namespace.pods("newer"), bool)
    crd = kubectl.get("crd", "wanpools.wan22.dev")
    schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
    schema["spec"]["properties"]["engine"]["properties"]["overdrive"] = {"type": "boolean", "default": True}
    schema["status"]["properties"]["horoscope"] = {"type": "string"}
    path = "/spec/versions/0/schema/openAPIV3Schema"
    patch = [{"op": "replace", "path": path, "value": crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]}]
    kubectl("patch", "crd", "wanpools.wan22.dev", "--type=json", "--patch", json.dumps(patch))
    news = '{"status": {"horoscope": "good"}, "metadata": {"annotations": {"x": "y"}}}'
    inside = ("--namespace", NAMESPACE)
    status = ("--subresource=status", "--type=merge", "--patch", news)
    await until(
        lambda: kubectl("patch", "wanpool", "newer", *inside, *status, "-o", "json"), lambda found: "good" in found
    )
    kubectl("label", "pod", pod["metadata"]["name"], "touched=yes", *inside)
    await asyncio.sleep(4)  # two rounds
    (same,) = namespace.pods("newer")
    assert same["metadata"]["uid"] == pod["metadata"]["uid"]
    assert namespace.pool("newer")["status"]["horoscope"] == "good"
    kubectl("apply", "--server-side", "--force-conflicts", "--filename", str(CRDS))
