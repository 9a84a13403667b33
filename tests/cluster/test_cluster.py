from __future__ import annotations

import http.client
import json
import ssl
from pathlib import Path
from typing import Any

import pytest

from wan22.errors import FailedPrecondition, Unavailable
from wan22_testing.cluster.certificates import Authority
from wan22_testing.cluster.component import Component
from wan22_testing.cluster.control_plane import ControlPlane
from wan22_testing.cluster.kubectl import Refused
from wan22_testing.cluster.programs import API_SERVER, CONTROLLERS, KUBERNETES_VERSION, Programs, built_folder

TOOLS = Path(__file__).parents[2] / "tools/kube"


def config_map(name: str, **metadata: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "default", **metadata}}


@pytest.fixture
def controllers(control_plane: ControlPlane) -> None:
    if not control_plane.controllers:
        pytest.skip(f"{' and '.join(CONTROLLERS)} are not beside the API server: run `make kube-bin`")


def test_the_api_server_is_the_pinned_one_and_serves_an_empty_cluster(control_plane: ControlPlane) -> None:
    kubectl = control_plane.kubectl()
    if Programs.find().folder == built_folder():
        version = json.loads(kubectl("version", "--output", "json"))["serverVersion"]
        assert (version["gitVersion"], version["minor"]) == (f"v{KUBERNETES_VERSION}", "34")
    namespaces = [item["metadata"]["name"] for item in kubectl.get("namespaces")["items"]]
    assert {"default", "kube-system"} <= set(namespaces)


def test_a_user_may_do_what_a_role_grants_and_no_more(control_plane: ControlPlane) -> None:
    kubectl = control_plane.kubectl()
    someone = control_plane.kubectl(control_plane.kubeconfig_of("someone"))
    with pytest.raises(Refused, match='User "someone" cannot list resource "configmaps"'):
        someone.get("configmaps")
    kubectl("create", "role", "reader", "--verb=list", "--resource=configmaps")
    kubectl("create", "rolebinding", "someone-reads", "--role=reader", "--user=someone")
    assert isinstance(someone.get("configmaps")["items"], list)
    with pytest.raises(Refused, match='User "someone" cannot'):
        someone.apply(config_map("forbidden"))


def test_a_group_of_a_certificate_counts(control_plane: ControlPlane) -> None:
    member = control_plane.kubectl(control_plane.kubeconfig_of("member", groups=["readers"]))
    kubectl = control_plane.kubectl()
    kubectl("create", "role", "group-reader", "--verb=get", "--resource=secrets")
    kubectl("create", "rolebinding", "readers-read", "--role=group-reader", "--group=readers")
    assert member("auth", "can-i", "get", "secrets").strip() == "yes"


def test_a_service_account_is_known_by_its_token_and_may_do_nothing_at_first(control_plane: ControlPlane) -> None:
    kubectl = control_plane.kubectl()
    kubectl("create", "serviceaccount", "operator")
    operator = control_plane.kubectl(control_plane.kubeconfig_of_service_account("default", "operator"))
    with pytest.raises(Refused, match='User "system:serviceaccount:default:operator" cannot list resource "pods"'):
        operator.get("pods")
    kubectl("create", "role", "pods", "--verb=list", "--resource=pods")
    kubectl("create", "rolebinding", "operator-pods", "--role=pods", "--serviceaccount=default:operator")
    assert isinstance(operator.get("pods")["items"], list)


def test_who_has_no_certificate_is_nobody(control_plane: ControlPlane) -> None:
    tls = ssl.create_default_context(cafile=str(control_plane.folder / "certificates/ca.crt"))
    connection = http.client.HTTPSConnection(control_plane.server.removeprefix("https://"), timeout=10, context=tls)
    connection.request("GET", "/api/v1/namespaces")
    answer = connection.getresponse()
    assert (answer.status, json.loads(answer.read())["reason"]) == (403, "Forbidden")
    connection.close()


@pytest.mark.usefixtures("controllers")
def test_what_an_object_owned_goes_with_it(control_plane: ControlPlane) -> None:
    kubectl = control_plane.kubectl()
    owner = kubectl.apply(config_map("owner"))
    reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner["metadata"]["uid"]}
    kubectl.apply(config_map("owned", ownerReferences=[reference]))
    kubectl("delete", "configmap", "owner")
    kubectl("wait", "--for=delete", "configmap/owned", "--timeout=60s")
    assert "owned" not in [item["metadata"]["name"] for item in kubectl.get("configmaps")["items"]]


@pytest.mark.usefixtures("controllers")
def test_the_scheduler_binds_a_pod_to_the_node_that_has_its_gpu(control_plane: ControlPlane) -> None:
    kubectl = control_plane.kubectl()
    kubectl("wait", "--for=create", "serviceaccount/default", "--timeout=60s")
    for name, gpus in (("without", "0"), ("with", "1")):
        kubectl.apply({"apiVersion": "v1", "kind": "Node", "metadata": {"name": f"node-{name}-gpu"}})
        room = {"cpu": "8", "memory": "64Gi", "pods": "100", "nvidia.com/gpu": gpus}
        conditions = [{"type": "Ready", "status": "True", "reason": "Test", "message": "plays a kubelet"}]
        status = {"capacity": room, "allocatable": room, "conditions": conditions}
        patch = json.dumps({"status": status})
        kubectl("patch", "node", f"node-{name}-gpu", "--subresource=status", "--type=merge", "--patch", patch)
        # what the node controller put on at its creation; it takes it off again by the heartbeats of a kubelet
        kubectl("patch", "node", f"node-{name}-gpu", "--type=merge", "--patch", '{"spec": {"taints": null}}')
    container = {"name": "worker", "image": "worker", "resources": {"limits": {"nvidia.com/gpu": "1"}}}
    kubectl.apply(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "worker", "namespace": "default"},
            "spec": {"containers": [container], "tolerations": [{"operator": "Exists"}]},
        }
    )
    kubectl("wait", "--for=condition=PodScheduled", "pod/worker", "--timeout=60s")
    assert kubectl.get("pod", "worker")["spec"]["nodeName"] == "node-with-gpu"


def test_two_control_planes_run_side_by_side_and_know_nothing_of_each_other(
    control_plane: ControlPlane, programs: Programs, tmp_path: Path
) -> None:
    with ControlPlane(tmp_path, programs) as other:
        other.kubectl().apply(config_map("of-the-other"))
        here = [item["metadata"]["name"] for item in control_plane.kubectl().get("configmaps")["items"]]
        there = [item["metadata"]["name"] for item in other.kubectl().get("configmaps")["items"]]
    assert ("of-the-other" in here, "of-the-other" in there) == (False, True)
    assert not any(component.running for component in (other.etcd, other.api_server, *other.controllers))


def test_an_api_server_that_was_killed_comes_back_with_all_it_had(programs: Programs, tmp_path: Path) -> None:
    with ControlPlane(tmp_path, programs) as control_plane:
        kubectl = control_plane.kubectl()
        before = kubectl.apply(config_map("kept"))
        control_plane.api_server.kill()
        with pytest.raises(Refused, match="refused"):
            kubectl.get("configmap", "kept")
        control_plane.api_server.start()
        control_plane.api_server.wait_until_ready()
        assert kubectl.get("configmap", "kept")["metadata"]["uid"] == before["metadata"]["uid"]


def test_a_folder_as_envtest_lays_it_out_is_enough_for_an_api_server(
    programs: Programs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assets = tmp_path / "assets"
    assets.mkdir()
    for name in API_SERVER:
        (assets / name).symlink_to(programs.path(name))
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(assets))
    with ControlPlane(tmp_path / "cluster", Programs.find()) as control_plane:
        assert control_plane.controllers == []
        assert control_plane.kubectl().get("namespace", "default")["status"]["phase"] == "Active"


def test_programs_that_are_missing_are_named_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(tmp_path))
    (tmp_path / "etcd").touch(mode=0o755)
    (tmp_path / "kubectl").touch(mode=0o644)  # not a program
    with pytest.raises(FailedPrecondition) as refused:
        Programs.find().require(*API_SERVER)
    assert refused.value.message == (
        f"kube-apiserver, kubectl: not in {tmp_path}. Run `make kube-bin` (it takes Go), or name a folder that holds "
        "them by KUBEBUILDER_ASSETS."
    )


def test_programs_are_looked_for_in_the_cache_folder_of_the_version_that_is_pinned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KUBEBUILDER_ASSETS", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert Programs.find().folder == tmp_path / "wan22/kube" / KUBERNETES_VERSION
    assert f"k8s.io/kubernetes v{KUBERNETES_VERSION}" in (TOOLS / "go.mod").read_text()


def test_a_component_that_ends_early_shows_the_end_of_its_log(tmp_path: Path) -> None:
    ls = Component(Path("/bin/ls"), tmp_path / "ls.log", {"no-such-flag": 1}, port=1, health="/")
    ls.start()
    with pytest.raises(Unavailable, match=r"(?s)ls ended before it was ready\..*no-such-flag"):
        ls.wait_until_ready()
    assert not ls.running


def test_a_component_that_is_never_well_is_given_up(tmp_path: Path) -> None:
    tail = Component(Path("/usr/bin/tail"), tmp_path / "tail.log", {"follow": "descriptor"}, port=1, health="/")
    tail.start()
    with pytest.raises(Unavailable, match=r"tail is not ready after 0\.2 s"):
        tail.wait_until_ready(0.2)
    tail.stop()
    assert not tail.running


def test_keys_are_for_their_owner_alone(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    pair = authority.issue("client", "client")
    assert [path.stat().st_mode & 0o777 for path in (pair.key, authority.signing_key("tokens"))] == [0o600, 0o600]


def test_what_kubectl_refuses_is_said_in_its_words(control_plane: ControlPlane) -> None:
    with pytest.raises(Refused, match='namespaces "no-such" not found'):
        control_plane.kubectl().get("namespace", "no-such")
