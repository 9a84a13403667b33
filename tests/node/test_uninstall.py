"""`helm uninstall` leaves what docs/install.md says, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from wan22_testing.cluster.kubectl import Kubectl

from .images import Images
from .release import Release, until

pytestmark = [pytest.mark.node, pytest.mark.timeout(1800)]
OF_THE_CLUSTER = {"configmap/kube-root-ca.crt", "serviceaccount/default"}


def everything(release: Release) -> set[str]:
    """All objects of the namespace but its events."""
    kinds = release.kubectl("api-resources", "--verbs=list", "--namespaced", "--output=name").split()
    wanted = ",".join(kind for kind in kinds if not kind.startswith("events") and "metrics.k8s.io" not in kind)
    return set(release.kubectl("get", wanted, *release.inside, "--output=name", "--ignore-not-found").split())


def test_what_stays_is_what_the_documentation_says(kubectl: Kubectl, images: Images, tmp_path: Path) -> None:
    release = Release(kubectl, images, tmp_path, "leaving")
    release.create_namespace()
    values = release.values()
    values["nodeCache"]["replicas"] = 1
    values["operator"]["gpuBudget"] = 2
    release.helm("install", values=values)
    release.uninstall()
    claims = ("leaving-gateway", "models-leaving-registry-0", "cache-leaving-node-cache-0")
    says = {
        *(f"persistentvolumeclaim/{name}" for name in claims),
        "secret/leaving-keys",
        "secret/leaving-authority",
        "lease.coordination.k8s.io/leaving-operator",
    }
    until(lambda: everything(release) - OF_THE_CLUSTER, lambda left: left == says, seconds=300)
    cluster_wide = kubectl.get("clusterroles,clusterrolebindings", "--selector=app.kubernetes.io/instance=leaving")
    assert cluster_wide["items"] == []
    kubectl("delete", "namespace", release.namespace, "--timeout=580s")
