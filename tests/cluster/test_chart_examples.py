"""The chart with each file of examples/values on a real API server; nothing runs, so that no node is needed."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from wan22_testing.chart import CHART, DEFINITION, EXAMPLES, Chart
from wan22_testing.cluster.control_plane import ControlPlane
from wan22_testing.cluster.helm import Helm
from wan22_testing.cluster.kubectl import Kubectl, Refused
from wan22_testing.cluster.programs import Programs
from wan22_testing.pod_policy import pods

FOREIGN = {"cert-manager.io", "monitoring.coreos.com", "gateway.networking.k8s.io"}
NAMESPACE = "wan22"
INSIDE = ("--namespace", NAMESPACE)
RESTRICTED = "pod-security.kubernetes.io/enforce=restricted"


@pytest.fixture(scope="module")
def namespace(kubectl: Kubectl) -> str:
    for name in (NAMESPACE, "video"):
        kubectl("create", "namespace", name)
        kubectl("label", "namespace", name, RESTRICTED)
        kubectl("wait", "--for=create", "serviceaccount/default", "--namespace", name, "--timeout=60s")
    return NAMESPACE


@pytest.fixture(scope="module")
def chart(programs: Programs, tmp_path_factory: pytest.TempPathFactory) -> Chart:
    return Chart(programs, tmp_path_factory.mktemp("chart"))


@pytest.fixture(scope="module")
def helm(control_plane: ControlPlane, programs: Programs, namespace: str) -> Helm:
    return Helm(programs, control_plane.kubeconfig)


@pytest.mark.parametrize("example", sorted(EXAMPLES.glob("*.yaml")), ids=lambda file: file.stem)
def test_the_api_server_takes_every_object_and_restricted_admission_every_pod(
    kubectl: Kubectl, chart: Chart, namespace: str, example: Path, tmp_path: Path
) -> None:
    objects = [one for one in chart.example(example) if one["apiVersion"].partition("/")[0] not in FOREIGN]
    given = [one for one in objects if one["kind"] != DEFINITION]
    given += [_bare(name, pod) for name, pod in pods(objects)]
    file = tmp_path / "objects.yaml"
    file.write_text(yaml.safe_dump_all(given))
    said = kubectl("apply", "--dry-run=server", "--filename", str(file))
    assert said.count("(server dry run)") == len(given)


def _bare(name: str, pod: dict[str, Any]) -> dict[str, Any]:
    """A pod as its controller would create it, but for what is only there once all is applied."""
    spec = {part: value for part, value in pod.items() if part not in {"serviceAccountName", "priorityClassName"}}
    named = {volume["name"] for volume in pod["volumes"]}
    mounted = {mount["name"] for container in pod["containers"] for mount in container["volumeMounts"]}
    claims = [{"name": one, "persistentVolumeClaim": {"claimName": one}} for one in sorted(mounted - named)]
    metadata = {"name": name.lower().replace("/", "-"), "namespace": NAMESPACE}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": spec | {"volumes": pod["volumes"] + claims},
    }


def test_keys_and_certificates_outlive_upgrades_and_a_new_component_gets_one_of_the_same_authority(
    kubectl: Kubectl, helm: Helm
) -> None:
    def data(name: str) -> dict[str, str]:
        found: dict[str, str] = kubectl.get("secret", name, *INSIDE)["data"]
        return found

    def made() -> dict[str, dict[str, str]]:
        names = ("keys", "authority", "gateway-tls", "registry-tls", "operator-tls", "worker-tls", "admin-tls")
        return {name: data(f"kept-{name}") for name in names}

    flags = (f"--values={EXAMPLES / 'single-node.yaml'}", "--set=crds.install=false", *INSIDE)
    notes = helm("install", "kept", str(CHART), *flags)
    before = made()
    for shown, secret, start in (
        ("{{.data.admin | base64decode}}", "kept-keys", "wan22_"),
        ('{{index .data "ca.crt" | base64decode}}', "kept-admin-tls", "-----BEGIN CERTIFICATE-----"),
    ):
        assert shown.replace("ca.crt", "$part").replace('"', '\\"') in notes
        assert kubectl("get", "secret", secret, *INSIDE, "--output", f"go-template={shown}").startswith(start)
    helm("upgrade", "kept", str(CHART), *flags, "--set=nodeCache.enabled=true,nodeCache.volume.storageClass=local")
    assert made() == before
    assert data("kept-node-cache-tls")["ca.crt"] == before["authority"]["tls.crt"]
    helm("upgrade", "kept", str(CHART), *flags, "--set=tls.gatewayNames={wan22.example.com}")
    after = made()
    assert {name for name in after if after[name] != before[name]} == {"gateway-tls"}  # it has to have another name
    helm("rollback", "kept", "2", *INSIDE)
    assert made() == before
    tenants = json.loads(base64.b64decode(before["keys"]["tenants.json"]))
    assert [key["roles"] for key in tenants["keys"]] == [["admin"], ["operator"]]

    helm("uninstall", "kept", *INSIDE)
    with pytest.raises(Refused, match="not found"):
        kubectl.get("deployment", "kept-gateway", *INSIDE)
    kubectl.get("persistentvolumeclaim", "kept-gateway", *INSIDE)
    helm("install", "kept", str(CHART), *flags)  # what was kept is taken over
    assert data("kept-keys") == before["keys"]
    assert data("kept-authority") == before["authority"]
    helm("uninstall", "kept", *INSIDE)
