"""What others install beside wan22, on the cluster: real programs, built here, as their own manifests install them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wan22.errors import FailedPrecondition
from wan22_testing.cluster.kubectl import Kubectl, Refused
from wan22_testing.cluster.programs import Programs
from wan22_testing.nodes.cluster import NodeCluster
from wan22_testing.nodes.image import write_image

ADMITTED_SECONDS = 300.0


@dataclass(frozen=True)
class Addon:
    """One of them; its programs and its install.yaml are what `make NAME-bin` builds."""

    name: str
    """Also of its namespace."""
    definition: str
    """A CustomResourceDefinition by which a cluster is known to have it."""
    images: Mapping[str, str]
    """By the names in its manifests: their programs."""
    deployments: Sequence[str]
    user: str = "1000"
    """In its images; a number, since it may not be root."""
    conditions: Sequence[str] = ()
    """What is Available when it works, beside the Deployments."""
    admits: Mapping[str, Any] | None = None
    """An object that its admission takes as soon as it works."""
    objects: Callable[[], Sequence[Mapping[str, Any]]] = field(default=list)
    """Applied beside install.yaml."""

    def is_there(self, kubectl: Kubectl) -> bool:
        """Whether the cluster has it."""
        return bool(kubectl("get", "crd", self.definition, "--ignore-not-found"))

    def install(self, nodes: NodeCluster, kubectl: Kubectl, folder: Path) -> None:
        """Installs it and waits until it works. Raises FailedPrecondition where it is not built."""
        programs = Programs(Programs.find().folder / self.name)
        try:
            programs.require(*self.images.values())
        except FailedPrecondition as error:
            raise FailedPrecondition(error.message.replace("kube-bin", f"{self.name}-bin")) from None
        for image, program in self.images.items():
            archive = folder / f"{program}.tar"
            files = {f"/{program}": programs.path(program)}
            write_image(archive, image, files, entrypoint=[f"/{program}"], user=self.user)
            nodes.load([archive])
        kubectl.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.name}})
        manifests = folder / f"{self.name}.yaml"
        given = programs.path("install.yaml").read_text()
        manifests.write_text(given.replace("imagePullPolicy: Always", "imagePullPolicy: Never"))
        kubectl("apply", "--server-side", "--filename", str(manifests))
        for one in self.objects():
            kubectl.apply(one)
        for deployment in self.deployments:
            kubectl("rollout", "status", f"deployment/{deployment}", f"--namespace={self.name}", "--timeout=580s")
        for condition in self.conditions:
            kubectl("wait", "--for=condition=Available", condition, "--timeout=580s")
        if self.admits:
            _until_admitted(kubectl, self.admits)

    def uninstall(self, kubectl: Kubectl, folder: Path) -> None:
        """Removes what `install` applied."""
        for one in self.objects():
            kubectl("delete", "--filename=-", "--ignore-not-found", "--timeout=580s", manifest=one)
        manifests = folder / f"{self.name}.yaml"
        kubectl("delete", "--filename", str(manifests), "--ignore-not-found", "--timeout=580s")
        kubectl("delete", "namespace", self.name, "--ignore-not-found", "--timeout=580s")


def _until_admitted(kubectl: Kubectl, given: Mapping[str, Any]) -> None:
    """A webhook's authority is put into the API server's configuration some time after it answers."""
    deadline = time.monotonic() + ADMITTED_SECONDS
    while True:
        try:
            kubectl.apply(given, "--dry-run=server")
        except Refused:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)
        else:
            return


KEDA = Addon(
    "keda",
    "scaledobjects.keda.sh",
    {"ghcr.io/kedacore/keda:main": "keda", "ghcr.io/kedacore/keda-metrics-apiserver:main": "keda-adapter"},
    ("keda-operator", "keda-metrics-apiserver"),
    conditions=("apiservice/v1beta1.external.metrics.k8s.io",),
)
CERT_MANAGER = Addon(
    "cert-manager",
    "certificates.cert-manager.io",
    {f"quay.io/jetstack/cert-manager-{name}:v1.11.5": name for name in ("controller", "webhook", "cainjector")},
    ("cert-manager", "cert-manager-webhook", "cert-manager-cainjector"),
    admits={
        "apiVersion": "cert-manager.io/v1",
        "kind": "Issuer",
        "metadata": {"name": "asked", "namespace": "cert-manager"},
        "spec": {"selfSigned": {}},
    },
)
