"""The chart on a real API server: what it installs runs, may do what it must and no more, and goes without a trace."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from wan22_testing.cluster.control_plane import ControlPlane
from wan22_testing.cluster.helm import Helm
from wan22_testing.cluster.kubectl import Kubectl, Refused
from wan22_testing.cluster.programs import Programs
from wan22_testing.installation import Installation
from wan22_testing.process_kubelet.images import Image
from wan22_testing.process_kubelet.kubelet import ProcessKubelet
from wan22_testing.process_kubelet.node import NodeSpec
from wan22_testing.tiny_models import shared_folder

from .waiting import patience

pytestmark = pytest.mark.asyncio(loop_scope="module")
CHART = str(Path(__file__).parents[2] / "helm/wan22")
T2V = "t2v-a14b-tiny"
NAMESPACE = "wan22-chart"
INSIDE = ("--namespace", NAMESPACE)
OPERATOR = f"system:serviceaccount:{NAMESPACE}:chart-operator"


@pytest.fixture(scope="module")
def kubectl(node_plane: ControlPlane) -> Kubectl:
    return node_plane.kubectl()


@pytest.fixture(scope="module")
def helm(node_plane: ControlPlane, programs: Programs) -> Helm:
    return Helm(programs, node_plane.kubeconfig)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def installation(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Installation]:
    async with Installation(tmp_path_factory.mktemp("installation"), worker_lease_seconds=4) as running:
        await running.push(T2V, shared_folder(T2V))
        yield running


@pytest.fixture(scope="module")
def operator_kubeconfig(node_plane: ControlPlane) -> Path:
    """Where the operator's pod finds its token: a process has no /var/run/secrets of its own."""
    return node_plane.folder / f"{NAMESPACE}-chart-operator.kubeconfig"


@pytest.fixture(scope="module")
def kubelet(
    node_plane: ControlPlane, kubectl: Kubectl, operator_kubeconfig: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ProcessKubelet]:
    worker = ("python", "-m", "wan22_testing.simulated_worker", "--variant", T2V)
    images = {
        "wan22/operator": Image(
            ("python", "-m", "wan22_operator"), {"WAN22_OPERATOR_KUBECONFIG": str(operator_kubeconfig)}
        ),
        "wan22/worker": Image(worker),
    }
    folder = tmp_path_factory.mktemp("nodes")
    with ProcessKubelet(node_plane.kubeconfig, folder, nodes=[NodeSpec("chart", gpus=2)], images=images) as running:
        kubectl("wait", "--for=condition=Ready", "node/chart", "--timeout=60s")
        yield running
    kubectl("delete", "node", "chart")


until = patience(60.0)


async def test_an_installed_operator_runs_pools_and_nothing_is_stuck_when_it_is_uninstalled(
    kubectl: Kubectl,
    helm: Helm,
    node_plane: ControlPlane,
    kubelet: ProcessKubelet,
    installation: Installation,
    operator_kubeconfig: Path,
) -> None:
    kubectl("create", "namespace", NAMESPACE)
    kubectl("label", "namespace", NAMESPACE, "pod-security.kubernetes.io/enforce=restricted")
    flags = [
        f"--set=operator.gateway={installation.gateway.address}",
        f"--set=operator.registry={installation.registry.address}",
        "--set=operator.workerDiscovery=addresses,operator.resyncSeconds=2,operator.leaseSeconds=3",
        "--set=gateway.enabled=false,registry.enabled=false,tls.mode=off",
    ]
    # the definitions are on this cluster already
    await asyncio.to_thread(helm, "install", "chart", CHART, *INSIDE, "--take-ownership", *flags)
    assert node_plane.kubeconfig_of_service_account(NAMESPACE, "chart-operator") == operator_kubeconfig
    await asyncio.to_thread(
        kubectl, "wait", "--for=condition=Available", "deployment/chart-operator", *INSIDE, "--timeout=50s"
    )

    pool = {
        "apiVersion": "wan22.dev/v1alpha1",
        "kind": "WanPool",
        "metadata": {"name": "live", "namespace": NAMESPACE},
        "spec": {
            "model": "wan2.2-t2v-a14b-tiny",
            "cache": {"size": "1Gi"},
            "scaling": {"minReplicas": 2, "maxReplicas": 2},
        },
    }
    kubectl.apply(pool)
    await until(
        lambda: kubectl.get("wanpool", "live", *INSIDE).get("status", {}).get("readyReplicas"), lambda n: n == 2
    )

    def uids() -> dict[str, str]:
        pods = kubectl.get("pods", *INSIDE, "--selector=wan22.dev/pool=live")["items"]
        return {pod["metadata"]["name"]: pod["metadata"]["uid"] for pod in pods}

    def operators() -> list[str]:
        pods = kubectl.get("pods", *INSIDE, "--selector=app.kubernetes.io/component=operator")["items"]
        return [pod["metadata"]["uid"] for pod in pods]

    before, old = uids(), operators()
    await asyncio.to_thread(helm, "upgrade", "chart", CHART, *INSIDE, *flags, "--set=operator.resyncSeconds=1")
    await until(operators, lambda found: len(found) == 1 and found != old)
    await asyncio.to_thread(
        kubectl, "wait", "--for=condition=Available", "deployment/chart-operator", *INSIDE, "--timeout=50s"
    )
    kubectl("label", "wanpool", "live", "seen=after-the-upgrade", *INSIDE)
    holder = "jsonpath={.spec.holderIdentity}"
    await until(lambda: kubectl("get", "lease", "chart-operator", *INSIDE, "--output", holder), bool)
    assert uids() == before  # an operator's upgrade restarts no worker

    await asyncio.to_thread(helm, "uninstall", "chart", *INSIDE, "--wait")
    assert uids() == before
    kubectl.get("crd", "wanpools.wan22.dev")
    await asyncio.to_thread(kubectl, "delete", "wanpool", "live", *INSIDE, "--timeout=20s")
    await until(uids, lambda found: not found)
    await asyncio.to_thread(kubectl, "delete", "namespace", NAMESPACE, "--timeout=50s")


MAY = [
    ("patch", "wanpools.wan22.dev", "--subresource=status"),
    ("watch", "wanmodels.wan22.dev"),
    ("create", "pods"),
    ("delete", "pods"),
    ("patch", "services"),
    ("create", "networkpolicies.networking.k8s.io"),
    ("list", "nodes"),
    ("create", "events.events.k8s.io"),
]
MAY_NOT = [
    ("patch", "wanpools.wan22.dev"),
    ("delete", "wanpools.wan22.dev"),
    ("patch", "pods"),
    ("delete", "services"),
    ("get", "secrets"),
    ("list", "configmaps"),
    ("list", "leases.coordination.k8s.io"),
    ("patch", "nodes"),
    ("create", "pods", "--subresource=exec"),
    ("create", "roles.rbac.authorization.k8s.io"),
    ("impersonate", "users"),
]


def _may(kubectl: Kubectl, namespace: str, asked: tuple[str, ...]) -> bool:
    try:
        answer = kubectl("auth", "can-i", *asked, "--as", OPERATOR, "--namespace", namespace)
    except Refused:  # it exits with 1 for a no
        return False
    return answer.strip() == "yes"


def rbac_of(helm: Helm, *flags: str) -> str:
    return helm("template", "chart", CHART, *INSIDE, "--show-only=templates/operator-rbac.yaml", *flags)


async def test_the_operator_may_do_what_it_must_and_no_more(kubectl: Kubectl, helm: Helm, tmp_path: Path) -> None:
    file = tmp_path / "rbac.yaml"
    kubectl("create", "namespace", f"{NAMESPACE}-rights")
    rights = ("--filename", str(file))
    file.write_text(rbac_of(helm))
    kubectl("create", "namespace", NAMESPACE)
    kubectl("apply", *rights)
    assert [asked for asked in MAY if not _may(kubectl, "default", asked)] == []
    assert [asked for asked in MAY_NOT if _may(kubectl, "default", asked)] == []
    assert _may(kubectl, NAMESPACE, ("update", "leases.coordination.k8s.io/chart-operator"))
    assert not _may(kubectl, NAMESPACE, ("update", "leases.coordination.k8s.io/another"))
    kubectl("delete", *rights)

    file.write_text(rbac_of(helm, f"--set=operator.namespaces={{{NAMESPACE}-rights}}"))
    kubectl("apply", *rights)
    assert _may(kubectl, f"{NAMESPACE}-rights", ("create", "pods"))
    assert not _may(kubectl, "default", ("create", "pods"))
    assert _may(kubectl, "default", ("list", "nodes"))
    kubectl("delete", *rights)
    kubectl("delete", "namespace", NAMESPACE, f"{NAMESPACE}-rights", "--timeout=50s")


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("operator.replicas=many", "got string, want integer"),
        ("operator.leaseSeconds=1", "minimum"),
        ("operator.replica=1", "additional properties 'replica' not allowed"),
        ("image.pullPolicy=Sometimes", "value must be one of"),
    ],
)
async def test_a_bad_value_is_refused_when_it_is_rendered(helm: Helm, flag: str, message: str) -> None:
    with pytest.raises(Refused, match=message):
        helm("template", "chart", CHART, f"--set={flag}")


async def test_the_definitions_are_rendered_to_be_kept_or_not_at_all(helm: Helm) -> None:
    shown = helm("template", "chart", CHART, "--show-only=templates/crds.yaml")
    assert shown.count("helm.sh/resource-policy: keep") == shown.count("kind: CustomResourceDefinition") == 2
    assert "CustomResourceDefinition" not in helm("template", "chart", CHART, "--set=crds.install=false")
