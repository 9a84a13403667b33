"""The real KEDA on the cluster: its operator and its metrics adapter, as its own manifests install them."""

from __future__ import annotations

from pathlib import Path

from wan22_testing.cluster.kubectl import Kubectl
from wan22_testing.cluster.programs import Programs
from wan22_testing.nodes.cluster import NodeCluster
from wan22_testing.nodes.image import write_image

NAMESPACE = "keda"
USER = "1000"
IMAGES = {"ghcr.io/kedacore/keda:main": "keda", "ghcr.io/kedacore/keda-metrics-apiserver:main": "keda-adapter"}
"""As the manifests name them: their programs."""
DEPLOYMENTS = ("keda-operator", "keda-metrics-apiserver")
METRICS = "apiservice/v1beta1.external.metrics.k8s.io"


def keda_programs() -> Programs:
    """What `make keda-bin` builds."""
    return Programs(Programs.find().folder / "keda")


def install(nodes: NodeCluster, kubectl: Kubectl, folder: Path) -> None:
    """Installs it and waits until autoscalers can ask it. Raises FailedPrecondition where it is not built."""
    programs = keda_programs()
    programs.require(*IMAGES.values())
    for image, program in IMAGES.items():
        archive = folder / f"{program}.tar"
        write_image(archive, image, {f"/{program}": programs.path(program)}, entrypoint=[f"/{program}"], user=USER)
        nodes.load([archive])
    manifests = folder / "keda.yaml"
    given = programs.path("install.yaml").read_text()
    manifests.write_text(given.replace("imagePullPolicy: Always", "imagePullPolicy: Never"))
    kubectl("apply", "--server-side", "--filename", str(manifests))
    for deployment in DEPLOYMENTS:
        kubectl("rollout", "status", f"deployment/{deployment}", f"--namespace={NAMESPACE}", "--timeout=580s")
    kubectl("wait", "--for=condition=Available", METRICS, "--timeout=580s")


def uninstall(kubectl: Kubectl, folder: Path) -> None:
    """Removes what `install` applied."""
    kubectl("delete", "--filename", str(folder / "keda.yaml"), "--ignore-not-found", "--timeout=580s")
