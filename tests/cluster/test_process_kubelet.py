from __future__ import annotations

import json
import os
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from wan22_testing.cluster.control_plane import ControlPlane
from wan22_testing.cluster.kubectl import Kubectl, Refused
from wan22_testing.process_kubelet.images import Image
from wan22_testing.process_kubelet.kubelet import ProcessKubelet
from wan22_testing.process_kubelet.node import NodeSpec

NODES = [NodeSpec("alpha", gpus=1, labels={"card": "h100"}), NodeSpec("beta", gpus=2)]
IMAGES = {
    "wan22/web": Image(("python", "-m", "http.server", "8000", "--bind", "$(BIND)"), {"BIND": "{pod_ip}"}),
    "wan22/registry": Image(("python", "-m", "wan22_registry"), {"WAN22_REGISTRY_HOST": "{pod_ip}"}),
    "wan22/python": Image(("python", "-c"), {"BIND": "{pod_ip}"}),
}
PORT = 7000
LISTEN = f"import os, signal, socket, sys; s = socket.create_server((os.environ['BIND'], {PORT})); signal.pause()"
STUBBORN = LISTEN.replace("s =", "signal.signal(15, signal.SIG_IGN); s =") + "; signal.pause()"
GENTLE = LISTEN.replace("s =", "signal.signal(15, lambda *_: sys.exit(7)); s =")
LISTENS: dict[str, Any] = {"readinessProbe": {"tcpSocket": {"port": PORT}, "periodSeconds": 1}}
"""Once they heed signals as they are to."""


@pytest.fixture(scope="module")
def kubectl(node_plane: ControlPlane) -> Kubectl:
    return node_plane.kubectl()


def pod(name: str, image: str, *arguments: str, container: dict[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
    one = {"name": "main", "image": image, "args": list(arguments), **(container or {})}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"containers": [one], "terminationGracePeriodSeconds": 2, **spec},
    }


def container_of(kubectl: Kubectl, name: str) -> Any:
    return kubectl.get("pod", name)["status"]["containerStatuses"][0]


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_nodes_have_their_gpus_and_labels(kubelet: ProcessKubelet, kubectl: Kubectl) -> None:
    node = kubectl.get("node", "beta")
    assert node["status"]["allocatable"]["nvidia.com/gpu"] == "2"
    assert kubectl.get("node", "alpha")["metadata"]["labels"]["card"] == "h100"


def test_a_pod_is_a_process_with_an_address_of_its_own(kubelet: ProcessKubelet, kubectl: Kubectl) -> None:
    probe = {"readinessProbe": {"httpGet": {"port": "http"}, "periodSeconds": 1}}
    ports = {"ports": [{"name": "http", "containerPort": 8000}]}
    for name in ("first", "second"):
        kubectl.apply(pod(name, "wan22/web:1", container=probe | ports))
    kubectl("wait", "--for=condition=Ready", "pod/first", "pod/second", "--timeout=60s")
    addresses = [kubectl.get("pod", name)["status"]["podIP"] for name in ("first", "second")]
    assert len(set(addresses)) == 2
    for address in addresses:
        with urllib.request.urlopen(f"http://{address}:8000/", timeout=5) as answer:
            assert answer.status == 200
    pid = kubelet.pid("default", "first")
    assert pid is not None
    assert is_running(pid)
    kubectl("delete", "pod", "first", "second", "--timeout=30s")
    assert not is_running(pid)


def test_a_service_of_wan22_is_ready_when_its_health_says_so(kubelet: ProcessKubelet, kubectl: Kubectl) -> None:
    health = {"grpc": {"port": 51052, "service": "ready"}, "periodSeconds": 1}
    live = {"grpc": {"port": 51052, "service": "live"}, "periodSeconds": 1}
    environment = [
        {"name": "WAN22_REGISTRY_ROOT", "value": "/data/models"},
        {"name": "WAN22_REGISTRY_PORT", "value": "50052"},
        {"name": "WAN22_REGISTRY_HEALTH_PORT", "value": "51052"},
    ]
    container = {
        "readinessProbe": health,
        "startupProbe": {**live, "failureThreshold": 60},
        "livenessProbe": live,
        "env": environment,
        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
    }
    volumes = [{"name": "data", "ephemeral": {"volumeClaimTemplate": {"spec": CLAIM}}}]
    kubectl.apply(pod("registry", "wan22/registry", container=container, volumes=volumes))
    kubectl("wait", "--for=condition=Ready", "pod/registry", "--timeout=60s")
    claim = kubectl.get("pvc", "registry-data")
    volume = kubectl.get("pv", claim["spec"]["volumeName"])
    folder = Path(volume["spec"]["local"]["path"])
    assert (folder / "models").is_dir()
    kubectl("delete", "pod", "registry", "--timeout=30s")
    kubectl("wait", "--for=delete", f"pv/{volume['metadata']['name']}", "--timeout=30s")
    assert not folder.exists()


CLAIM = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}


def test_the_downward_api_and_references_are_filled_in(kubelet: ProcessKubelet, kubectl: Kubectl) -> None:
    kubectl("create", "secret", "generic", "key", "--from-literal=word=open")
    environment = [
        {"name": "UID", "valueFrom": {"fieldRef": {"fieldPath": "metadata.uid"}}},
        {"name": "ADDRESS", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        {"name": "WORD", "valueFrom": {"secretKeyRef": {"name": "key", "key": "word"}}},
        {"name": "BOTH", "value": "$(WORD) on $(ADDRESS), $$(WORD), $(NONE)"},
    ]
    code = "import os, json; print(json.dumps(dict(os.environ)))"
    kubectl.apply(pod("told", "wan22/python", code, container={"env": environment}, restartPolicy="Never"))
    kubectl("wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/told", "--timeout=60s")
    told = kubectl.get("pod", "told")
    (log,) = kubelet.folder.glob("*/told.main.log")
    said = json.loads(log.read_text())
    address = told["status"]["podIP"]
    assert (said["UID"], said["ADDRESS"], said["HOSTNAME"]) == (told["metadata"]["uid"], address, "told")
    assert said["BOTH"] == f"open on {address}, $(WORD), $(NONE)"
    kubectl("delete", "pod/told", "secret/key")


def test_a_deletion_is_a_sigterm_first_and_a_sigkill_when_the_grace_is_over(
    kubelet: ProcessKubelet, kubectl: Kubectl
) -> None:
    kubectl.apply(pod("gentle", "wan22/python", GENTLE, container=LISTENS, terminationGracePeriodSeconds=600))
    kubectl.apply(pod("stubborn", "wan22/python", STUBBORN, container=LISTENS))
    kubectl("wait", "--for=condition=Ready", "pod/gentle", "pod/stubborn", "--timeout=60s")
    pid = kubelet.pid("default", "stubborn")
    assert pid is not None
    kubectl("delete", "pod", "gentle", "--timeout=30s")  # far less than its grace
    kubectl("delete", "pod", "stubborn", "--wait=false")
    assert is_running(pid)
    kubectl("wait", "--for=delete", "pod/stubborn", "--timeout=30s")
    assert not is_running(pid)


def test_a_container_that_ends_is_started_again_and_says_how_it_ended(
    kubelet: ProcessKubelet, kubectl: Kubectl
) -> None:
    kubectl.apply(pod("crashing", "wan22/python", "raise SystemExit(3)"))
    kubectl("wait", "--for=jsonpath={.status.containerStatuses[0].restartCount}=2", "pod/crashing", "--timeout=60s")
    assert container_of(kubectl, "crashing")["lastState"]["terminated"]["exitCode"] == 3
    kubectl("delete", "pod", "crashing", "--timeout=30s")


def test_a_container_that_is_not_live_is_started_again(kubelet: ProcessKubelet, kubectl: Kubectl) -> None:
    started = {"startupProbe": {**LISTENS["readinessProbe"], "failureThreshold": 60}}
    dead = {**started, "livenessProbe": {"tcpSocket": {"port": 9}, "periodSeconds": 1, "failureThreshold": 2}}
    kubectl.apply(pod("hung", "wan22/python", GENTLE, container=dead))
    kubectl("wait", "--for=jsonpath={.status.containerStatuses[0].restartCount}=1", "pod/hung", "--timeout=60s")
    assert container_of(kubectl, "hung")["lastState"]["terminated"]["exitCode"] == 7  # by its SIGTERM
    kubectl("delete", "pod", "hung", "--timeout=30s")


def test_what_is_not_played_is_said(kubelet: ProcessKubelet, kubectl: Kubectl) -> None:
    kubectl.apply(pod("other", "registry.example/other:1", ""))
    waiting = "jsonpath={.status.containerStatuses[0].state.waiting.reason}=ErrImagePull"
    kubectl("wait", f"--for={waiting}", "pod/other", "--timeout=60s")
    kubectl.apply(pod("hooked", "wan22/web", container={"lifecycle": {"preStop": {"sleep": {"seconds": 1}}}}))
    kubectl("wait", "--for=jsonpath={.status.phase}=Failed", "pod/hooked", "--timeout=60s")
    assert "lifecycle hooks" in kubectl.get("pod", "hooked")["status"]["message"]
    kubectl("delete", "pod", "other", "hooked", "--timeout=30s")


def test_a_killed_node_takes_its_processes_along_and_comes_back_with_them(
    kubelet: ProcessKubelet, kubectl: Kubectl
) -> None:
    patience = [
        {"key": f"node.kubernetes.io/{taint}", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 600}
        for taint in ("not-ready", "unreachable")
    ]
    placed: dict[str, Any] = {"nodeSelector": {"card": "h100"}, "tolerations": patience}
    kubectl.apply(pod("there", "wan22/python", GENTLE, container=LISTENS, **placed))
    kubectl("wait", "--for=condition=Ready", "pod/there", "--timeout=60s")
    pid = kubelet.pid("default", "there")
    assert pid is not None
    kubelet.kill_node("alpha")
    assert not is_running(pid)
    kubectl("wait", "--for=condition=Ready=Unknown", "node/alpha", "--timeout=60s")
    kubectl("wait", "--for=condition=Ready=False", "pod/there", "--timeout=60s")
    kubelet.restore_node("alpha")
    kubectl("wait", "--for=condition=Ready", "node/alpha", "pod/there", "--timeout=60s")
    status = container_of(kubectl, "there")
    assert (status["restartCount"], status["lastState"]["terminated"]["reason"]) == (1, "ContainerStatusUnknown")
    kubectl("delete", "pod", "there", "--timeout=30s")


def test_a_node_without_network_keeps_its_processes_and_hears_of_deletions_later(
    kubelet: ProcessKubelet, kubectl: Kubectl
) -> None:
    kubectl.apply(pod("apart", "wan22/python", GENTLE, container=LISTENS, nodeSelector={"card": "h100"}))
    kubectl("wait", "--for=condition=Ready", "pod/apart", "--timeout=60s")
    pid = kubelet.pid("default", "apart")
    assert pid is not None
    kubelet.cut_off_node("alpha")
    with pytest.raises(Refused, match="timed out"):
        kubectl("delete", "pod", "apart", "--timeout=2s")
    assert is_running(pid)
    kubelet.restore_node("alpha")
    kubectl("wait", "--for=delete", "pod/apart", "--timeout=30s")
    assert not is_running(pid)
