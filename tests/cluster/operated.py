"""An operator that may do what the chart grants and no more, and what tests do to it and look at."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from wan22.client import Client
from wan22.v1.generation_pb2 import Generation
from wan22_testing.cluster.control_plane import ControlPlane
from wan22_testing.cluster.helm import Helm
from wan22_testing.cluster.kubectl import Kubectl
from wan22_testing.cluster.programs import Programs
from wan22_testing.installation import Installation
from wan22_testing.process_kubelet.images import Image
from wan22_testing.process_kubelet.kubelet import ProcessKubelet
from wan22_testing.process_kubelet.node import NodeSpec
from wan22_testing.service_process import ServiceProcess
from wan22_testing.tiny_models import shared_folder

from .waiting import patience

CRDS = Path(__file__).parents[2] / "helm/wan22/files/crds"
CHART = str(Path(__file__).parents[2] / "helm/wan22")
T2V = "t2v-a14b-tiny"
MODEL = "wan2.2-t2v-a14b-tiny"
RIGHTS = ("templates/operator-serviceaccount.yaml", "templates/operator-rbac.yaml")
RELEASE = "tests"
LEASE = f"{RELEASE}-operator"
SIMULATED = ("python", "-m", "wan22_testing.simulated_worker", "--variant", T2V)


until = patience(60.0)


class Operated:
    """One namespace with its pools, and operators that look after it."""

    def __init__(
        self, control_plane: ControlPlane, helm: Helm, installation: Installation, namespace: str, **settings: object
    ) -> None:
        self.kubectl: Kubectl = control_plane.kubectl()
        self.installation = installation
        self.namespace = namespace
        self.inside = ("--namespace", namespace)
        self._helm = helm
        self._control_plane = control_plane
        self._settings = settings

    def grant(self, folder: Path) -> None:
        """Makes the namespace, and the operator's ServiceAccount with the chart's rights there."""
        self.kubectl("create", "namespace", self.namespace)
        budget = self._settings.get("gpu_budget")
        values = [f"--set=operator.namespaces={{{self.namespace}}}"]
        values += [] if budget is None else [f"--set=operator.gpuBudget={budget}"]
        shown = [f"--show-only={template}" for template in RIGHTS]
        rights = folder / "rights.yaml"
        rights.write_text(self._helm("template", RELEASE, CHART, *self.inside, *shown, *values))
        self.kubectl("apply", "--filename", str(rights))

    def operator(self, name: str = "operator", **settings: object) -> ServiceProcess:
        """An operator that is not started yet; each by a name of its own, by which it holds the Lease."""
        given = {
            "kubeconfig": self._control_plane.kubeconfig_of_service_account(self.namespace, LEASE),
            "namespaces": self.namespace,
            "namespace": self.namespace,
            "identity": name,
            "lease_name": LEASE,
            "gateway": self.installation.gateway.address,
            "registry": self.installation.registry.address,
            "worker_image": "wan22/worker:1",
            "worker_discovery": "addresses",
            "resync_seconds": 2,
            "lease_seconds": 20,  # a busy machine takes long to start an API server anew
            **self._settings,
            **settings,
        }
        log = self.installation.folder / f"{name}.log"
        return ServiceProcess("wan22_operator", log, serves=False, **given)

    def apply(self, *names: str, **spec: Any) -> None:
        """Applies pools of the same spec."""
        given = {"model": MODEL, "engine": {"gpusPerWorker": 1}, "drainSeconds": 20, "cache": {"size": "1Gi"}, **spec}
        pools = [
            {
                "apiVersion": "wan22.dev/v1alpha1",
                "kind": "WanPool",
                "metadata": {"name": name, "namespace": self.namespace},
                "spec": given,
            }
            for name in names
        ]
        manifest = {"apiVersion": "v1", "kind": "List", "items": pools}
        self.kubectl("apply", "--server-side", "--filename=-", manifest=manifest)

    def get(self, name: str) -> dict[str, Any]:
        """The WanPool."""
        found: dict[str, Any] = self.kubectl.get("wanpool", name, *self.inside)
        return found

    def status(self, name: str) -> dict[str, Any]:
        """Its status."""
        return {"workers": [], "conditions": [], "readyReplicas": 0, **self.get(name).get("status", {})}

    def condition(self, name: str, kind: str) -> str:
        """The reason of one of its conditions."""
        reasons = {one["type"]: one["reason"] for one in self.status(name)["conditions"]}
        return str(reasons.get(kind, ""))

    def states(self, name: str) -> dict[str, str]:
        """What its workers do."""
        return {worker["name"]: worker["state"] for worker in self.status(name)["workers"]}

    def pods(self, name: str) -> list[dict[str, Any]]:
        """All its pods."""
        found: list[dict[str, Any]] = self.kubectl.get("pods", *self.inside, "--selector", f"wan22.dev/pool={name}")[
            "items"
        ]
        return found

    def uids(self, name: str) -> dict[str, str]:
        """Its pods that are not being deleted."""
        return {
            pod["metadata"]["name"]: pod["metadata"]["uid"]
            for pod in self.pods(name)
            if "deletionTimestamp" not in pod["metadata"]
        }

    async def until_ready(self, name: str, replicas: int) -> dict[str, str]:
        """Waits for so many ready workers; returns their pods."""
        await until(lambda: self.status(name)["readyReplicas"], lambda found: found == replicas)
        return self.uids(name)

    async def remove(self, *names: str) -> None:
        """Deletes pools and waits until nothing of them is left."""
        await asyncio.to_thread(self.kubectl, "delete", "wanpool", *names, *self.inside, "--timeout=50s")
        for name in names:
            await until(lambda name=name: self.uids(name), lambda found: not found)

    async def create(self, client: Client, pool: str, steps: int = 4) -> Generation:
        """Asks a pool for a video."""
        return await client.create(
            variant=T2V,
            prompt="a red circle",
            num_frames=5,
            num_inference_steps=steps,
            pool=f"pools/{self.namespace}.{pool}",
        )


def condition_of(status: Mapping[str, Any], kind: str) -> tuple[str, str, str]:
    """Status, reason and message of a condition; empty where there is none."""
    found = {one["type"]: one for one in status.get("conditions", [])}.get(kind)
    return ("", "", "") if found is None else (found["status"], found["reason"], found["message"])


@contextmanager
def nodes_of(
    plane: ControlPlane, folder: Path, nodes: list[NodeSpec], images: Mapping[str, Image]
) -> Iterator[ProcessKubelet]:
    """Nodes that are Ready."""
    kubectl, names = plane.kubectl(), [node.name for node in nodes]
    with ProcessKubelet(plane.kubeconfig, folder, nodes=nodes, images=images) as running:
        kubectl("wait", "--for=condition=Ready", *(f"node/{name}" for name in names), "--timeout=60s")
        yield running
    kubectl("delete", "node", "--ignore-not-found", *names)


@asynccontextmanager
async def operated_on(
    plane: ControlPlane,
    programs: Programs,
    folder: Path,
    namespace: str,
    *,
    worker_lease_seconds: float = 4,
    **settings: object,
) -> AsyncIterator[Operated]:
    """A namespace with a gateway, and a registry that has the tiny model; `settings` are those of its operators."""
    async with Installation(folder, worker_lease_seconds=worker_lease_seconds) as running:
        await running.push(T2V, shared_folder(T2V))
        operated = Operated(plane, Helm(programs, plane.kubeconfig), running, namespace, **settings)
        operated.grant(folder)
        yield operated


@asynccontextmanager
async def started(operated: Operated) -> AsyncIterator[ServiceProcess]:
    """An operator at work; it may be killed, and be started again."""
    process = operated.operator()
    process.start()
    await process.until()
    yield process
    if process.running:
        process.kill()
