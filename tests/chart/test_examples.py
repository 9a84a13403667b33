"""Every file of examples/values, rendered. `python tools/render_chart.py` writes golden/*.yaml anew: review them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]
import pytest

from wan22_testing.chart import DEFINITION, EXAMPLES, GOLDEN, Chart, golden_text
from wan22_testing.pod_policy import pods, violations

FILES = sorted(EXAMPLES.glob("*.yaml"))
FOREIGN = {"cert-manager.io", "monitoring.coreos.com", "gateway.networking.k8s.io"}
"""Groups whose definitions others install."""
VERSIONS = ("1.30", "1.34")
MADE_BY_THE_CHART = "-tls", "-keys", "-authority"


@pytest.fixture(scope="module", params=FILES, ids=lambda file: file.stem)
def example(request: pytest.FixtureRequest) -> Path:
    path: Path = request.param
    return path


@pytest.fixture(scope="module")
def objects(chart: Chart, example: Path) -> list[dict[str, Any]]:
    return chart.example(example)


def selects(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    return bool(selector["matchLabels"].items() <= labels.items())


def pod_labels(objects: list[dict[str, Any]]) -> list[dict[str, str]]:
    templates = [one["spec"]["template"]["metadata"] for one in objects if "template" in one.get("spec", {})]
    return [found["labels"] for found in [*templates, *(one["metadata"] for one in objects if one["kind"] == "Pod")]]


def test_it_is_what_was_reviewed(objects: list[dict[str, Any]], example: Path) -> None:
    assert golden_text(objects) == (GOLDEN / example.name).read_text()


def test_helm_finds_nothing_to_complain_of(chart: Chart, example: Path) -> None:
    assert "WARNING" not in chart.lint("--strict", f"--values={example}")


@pytest.mark.parametrize("version", VERSIONS)
def test_every_object_fits_the_schemas_of_kubernetes(objects: list[dict[str, Any]], version: str) -> None:
    known = [one for one in objects if one["apiVersion"].partition("/")[0] not in FOREIGN]
    for one in known:
        if one["kind"] != DEFINITION:  # these are applied to an API server by the tests of the cluster
            kubernetes_validate.validate(one, version, strict=True)
    assert {"Deployment", "StatefulSet", "NetworkPolicy"} <= {one["kind"] for one in known}


def test_no_pod_breaks_the_policy_and_only_the_operator_has_a_token(objects: list[dict[str, Any]]) -> None:
    assert violations(objects, token_allowed=["Deployment/wan22-operator"]) == []
    assert len(list(pods(objects))) >= 4


def test_all_pods_are_denied_by_default_and_each_component_has_its_own_allowance(objects: list[dict[str, Any]]) -> None:
    policies = {one["metadata"]["name"]: one["spec"] for one in objects if one["kind"] == "NetworkPolicy"}
    everything = policies.pop("wan22-default-deny")
    assert everything["policyTypes"] == ["Ingress", "Egress"]
    assert "ingress" not in everything
    for labels in pod_labels(objects):
        component = labels["app.kubernetes.io/component"]
        assert selects(everything["podSelector"], labels)
        own = [name for name, spec in policies.items() if selects(spec["podSelector"], labels)]
        assert own == [f"wan22-{component}"]


def test_services_and_budgets_find_the_pods_that_they_are_for(objects: list[dict[str, Any]]) -> None:
    workloads = [one for one in objects if one["kind"] in {"Deployment", "StatefulSet"}]
    for service in (one for one in objects if one["kind"] == "Service"):
        (workload,) = [one for one in workloads if one["metadata"]["name"] == service["metadata"]["name"]]
        template = workload["spec"]["template"]
        assert service["spec"]["selector"].items() <= template["metadata"]["labels"].items()
        ports = {port["name"] for port in template["spec"]["containers"][0]["ports"]}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports
    budgets = {one["metadata"]["name"]: one["spec"] for one in objects if one["kind"] == "PodDisruptionBudget"}
    assert set(budgets) == {"wan22-gateway", "wan22-registry"}
    for spec in budgets.values():
        assert spec["maxUnavailable"] == 1
        assert [labels for labels in pod_labels(objects) if selects(spec["selector"], labels)]


def test_secrets_that_the_chart_names_by_itself_are_made_by_it(objects: list[dict[str, Any]]) -> None:
    made = {one["metadata"]["name"] for one in objects if one["kind"] == "Secret"}
    made |= {one["spec"]["secretName"] for one in objects if one["kind"] == "Certificate"}
    for name, pod in pods(objects):
        wanted = {volume["secret"]["secretName"] for volume in pod.get("volumes", []) if "secret" in volume}
        for variable in pod["containers"][0].get("env", []):
            if reference := variable.get("valueFrom", {}).get("secretKeyRef"):
                wanted.add(reference["name"])
        own = {one for one in wanted if one.endswith(MADE_BY_THE_CHART)}
        assert own <= made, name


def test_probes_ask_the_plaintext_health_port_by_grpc(objects: list[dict[str, Any]]) -> None:
    for one in (one for one in objects if one["kind"] in {"Deployment", "StatefulSet"}):
        (container,) = one["spec"]["template"]["spec"]["containers"]
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        asked = {probe: container[probe]["grpc"] for probe in ("startupProbe", "readinessProbe", "livenessProbe")}
        assert asked == {
            "startupProbe": {"port": ports["health"], "service": "live"},
            "readinessProbe": {"port": ports["health"], "service": "ready"},
            "livenessProbe": {"port": ports["health"], "service": "live"},
        }
