"""wan22 installed by Helm, and what tests do to it and look at."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self, TypeVar

import yaml  # type: ignore[import-untyped]

from wan22.model_client import ModelClient
from wan22.model_packing import Packer
from wan22.tls import Tls
from wan22.variants import model_of
from wan22_testing.chart import CHART
from wan22_testing.cluster.helm import Helm
from wan22_testing.cluster.kubectl import Kubectl, Refused
from wan22_testing.cluster.port_forward import PortForward
from wan22_testing.cluster.programs import Programs
from wan22_testing.tiny_models import shared_folder

from .images import Images

RESTRICTED = {
    "pod-security.kubernetes.io/enforce": "restricted",
    "pod-security.kubernetes.io/enforce-version": "latest",
}
SMALL = {"requests": {"cpu": "20m", "memory": "96Mi"}, "limits": {"memory": "1Gi"}}
VOLUME = {"size": "1Gi"}
Found = TypeVar("Found")
FIRST = "wan22"
"""The release that brings the CRDs, of which a cluster has one set."""
GPU = "nvidia.com/gpu"
MONITORING = "monitoring"
"""Of whose pods the namespace is that reads metrics."""
T2V, TI2V = "t2v-a14b-tiny", "ti2v-5b-tiny"
SECONDS = 600.0
"""For one call of kubectl or helm, which may wait for what a busy machine is to do."""
WORKERS = {"step_seconds": 0.25, "load_seconds": 2, "checkpoint_seconds": 2}
"""A generation of 100 steps takes 25 s."""


def until(find: Callable[[], Found], good: Callable[[Found], bool], seconds: float = 600.0) -> Found:
    """What is found, once it is good; what cannot be asked just now, such as while a node is down, is asked again."""
    deadline = time.monotonic() + seconds
    while True:
        found: Found | Refused
        try:
            found = find()
        except Refused as error:
            found = error
        else:
            if good(found):
                return found
        if time.monotonic() > deadline:
            raise AssertionError(f"after {seconds} s it is {found}")
        time.sleep(0.5)


def nodes_for_pods(kubectl: Kubectl) -> list[dict[str, Any]]:
    """The nodes that take pods without further ado."""
    found: list[dict[str, Any]] = kubectl.get("nodes")["items"]
    barred = {"NoSchedule", "NoExecute"}
    return [node for node in found if not barred & {taint["effect"] for taint in node["spec"].get("taints", [])}]


class Release:
    """One release in one namespace, under Pod Security restricted."""

    def __init__(self, kubectl: Kubectl, images: Images, folder: Path, name: str = FIRST) -> None:
        self.kubectl = kubectl
        self.images = images
        self.name = name
        self.namespace = name
        self.inside = ("--namespace", self.namespace)
        self.nodes = nodes_for_pods(kubectl)
        self.gpus = any(GPU in node["status"]["allocatable"] for node in self.nodes)
        self.caches = min(len(self.nodes), 2)
        self._helm = Helm(Programs.find(), kubectl.kubeconfig, seconds=SECONDS)
        self._folder = folder

    def values(self) -> dict[str, Any]:
        """What it is installed with, beside the chart's defaults."""
        chosen: dict[str, Any] = {
            part: {"volume": VOLUME, "resources": SMALL} for part in ("gateway", "registry", "nodeCache")
        }
        chosen["crds"] = {"install": self.name == FIRST}
        chosen["gateway"]["kedaPort"] = 50053
        caches = {"replicas": self.caches, "volume": {**VOLUME, "storageClass": self._class()}}
        chosen["nodeCache"] |= {"enabled": True, **caches}
        chosen["operator"] = {"namespaces": [self.namespace], "resources": SMALL, "resyncSeconds": 5}
        images = self.images.values()
        chosen["workers"] = {**images["workers"], "settings": WORKERS}
        chosen["image"] = images["image"]
        monitoring = {"matchLabels": {"kubernetes.io/metadata.name": f"{self.name}-{MONITORING}"}}
        chosen["networkPolicy"] = {"metrics": [{"namespaceSelector": monitoring}]}
        return chosen

    def create_namespace(self) -> None:
        """Makes it, if it is not there."""
        metadata = {"name": self.namespace, "labels": RESTRICTED}
        self.kubectl.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})

    @contextmanager
    def installed(self, *variants: str, values: dict[str, Any] | None = None) -> Iterator[Self]:
        """Installs it in its namespace with these tiny models in its registry; removes the namespace in the end."""
        self.create_namespace()
        self.helm("install", values=values)
        asyncio.run(self.push(*variants))
        yield self
        self.kubectl("delete", "namespace", self.namespace, "--timeout=580s")

    def helm(self, command: str, *flags: str, chart: Path = CHART, values: dict[str, Any] | None = None) -> str:
        """Installs or upgrades it, and waits until all is ready."""
        file = self._folder / f"{self.name}-values.json"
        file.write_text(json.dumps(values or self.values()))
        given = (self.name, str(chart), f"--values={file}", *self.inside, "--wait", "--timeout=580s")
        return self._helm(command, *given, *flags)

    def roll_back(self) -> None:
        """To the revision before, and waits until all is ready."""
        self._helm("rollback", self.name, *self.inside, "--wait", "--timeout=580s")

    def rendered(self, template: str, values: dict[str, Any]) -> list[dict[str, Any]]:
        """What a template of the chart gives with values."""
        file = self._folder / f"{self.name}-rendered.json"
        file.write_text(json.dumps(values))
        text = self._helm(
            "template", self.name, str(CHART), *self.inside, f"--values={file}", f"--show-only={template}"
        )
        return [found for found in yaml.safe_load_all(text) if found]

    def test(self) -> str:
        """`helm test`."""
        return self._helm("test", self.name, *self.inside, "--timeout=580s")

    def uninstall(self) -> None:
        """Removes it as a user does."""
        self._helm("uninstall", self.name, *self.inside, "--wait", "--timeout=580s")

    def secret(self, name: str, key: str) -> str:
        """A part of a Secret."""
        data = self.kubectl.get("secret", f"{self.name}-{name}", *self.inside)["data"]
        return base64.b64decode(data[key]).decode()

    async def push(self, *variants: str) -> None:
        """Puts tiny models into the registry, as docs/install.md does: through a forwarded port, as admin."""
        tls = Tls(*(self._folder / name for name in ("ca.crt", "tls.crt", "tls.key")))
        for path in (tls.ca, tls.cert, tls.key):
            assert path is not None
            path.write_text(self.secret("admin-tls", path.name))
        with PortForward(self.kubectl, f"service/{self.name}-registry", 50052, *self.inside) as forward:
            async with ModelClient(forward.address, tls) as models:
                for variant in variants:
                    packer = Packer(self._folder / "packing", variant)
                    folder = shared_folder(variant)
                    await models.push_folder(
                        folder, model=model_of(variant), variant=variant, tags=["latest"], packer=packer
                    )

    def apply(self, name: str, variant: str = "t2v-a14b-tiny", **spec: Any) -> None:
        """Applies a pool, and waits until the gateway takes generations for it."""
        given = {
            "model": model_of(variant),
            "defaultForVariant": True,
            "engine": {"gpusPerWorker": int(self.gpus)},
            "drainSeconds": 5,
            "resources": {"requests": {"cpu": "10m", "memory": "64Mi"}, "limits": {"memory": "512Mi"}},
            **spec,
        }
        metadata = {"name": name, "namespace": self.namespace}
        self.kubectl.apply({"apiVersion": "wan22.dev/v1alpha1", "kind": "WanPool", "metadata": metadata, "spec": given})
        self.kubectl("wait", "--for=condition=Declared", f"wanpool/{name}", *self.inside, "--timeout=580s")

    def status(self, name: str) -> dict[str, Any]:
        """A pool's."""
        found = self.kubectl.get("wanpool", name, *self.inside).get("status", {})
        return {"readyReplicas": 0, "workers": [], **found}

    def condition(self, pool: str, kind: str) -> str:
        """The reason of one of a pool's conditions."""
        reasons = {one["type"]: one["reason"] for one in self.status(pool).get("conditions", [])}
        return str(reasons.get(kind, ""))

    def busy(self, pool: str) -> set[str]:
        """The pods of the workers that have a generation."""
        return {worker["name"] for worker in self.status(pool)["workers"] if worker["state"] == "Busy"}

    def ready(self, component: str) -> int:
        """How many pods of a component are ready."""
        states = [pod["status"].get("containerStatuses", [{"ready": False}])[0] for pod in self.pods(component)]
        return sum(state["ready"] for state in states)

    def workers(self, pool: str) -> dict[str, dict[str, Any]]:
        """The pods of a pool that are not being deleted, by name."""
        pods = self.kubectl.get("pods", *self.inside, "--selector", f"wan22.dev/pool={pool}")["items"]
        return {pod["metadata"]["name"]: pod for pod in pods if "deletionTimestamp" not in pod["metadata"]}

    def pods(self, component: str) -> list[dict[str, Any]]:
        """Those of a component of the chart."""
        selector = f"app.kubernetes.io/instance={self.name},app.kubernetes.io/component={component}"
        found: list[dict[str, Any]] = self.kubectl.get("pods", *self.inside, "--selector", selector)["items"]
        return found

    def delete_pool(self, name: str) -> None:
        """Removes a pool, and waits until its workers are gone."""
        self.kubectl("delete", "wanpool", name, *self.inside, "--timeout=580s")
        until(lambda: self.workers(name), lambda found: not found)

    def _class(self) -> str:
        """The cluster's default StorageClass, which chart values have to name for node caches."""
        mark = "storageclass.kubernetes.io/is-default-class"
        classes = self.kubectl.get("storageclass")["items"]
        return str(next(c["metadata"]["name"] for c in classes if c["metadata"].get("annotations", {}).get(mark)))
