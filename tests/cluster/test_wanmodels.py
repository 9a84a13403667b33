from __future__ import annotations

import json
from typing import Any

import pytest

from wan22_testing.cluster.kubectl import Kubectl, Refused

MODEL = "wan2.2-ti2v-5b:latest"


def model(name: str = "model", **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "wan22.dev/v1alpha1",
        "kind": "WanModel",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"model": MODEL, **spec},
    }


def test_a_model_is_wanted_on_all_nodes_and_not_pinned_by_default(kubectl: Kubectl) -> None:
    assert kubectl.apply(model(), "--dry-run=server")["spec"] == {"model": MODEL, "nodeSelector": {}, "pinned": False}


def test_a_model_that_says_everything_is_kept_as_it_is(kubectl: Kubectl) -> None:
    spec: dict[str, Any] = {
        "model": f"wan2.2-ti2v-5b@sha256:{'0' * 64}",
        "nodeSelector": {"pool": "gpu"},
        "pinned": True,
    }
    assert kubectl.apply(model(**spec), "--dry-run=server")["spec"] == spec


@pytest.mark.parametrize(
    ("spec", "field", "message"),
    [
        ({"model": "Wan 2.2"}, "model", 'model is "Wan 2.2": use MODEL[:TAG][@sha256:DIGEST], such as'),
        ({"model": "m" * 201}, "model", "may not be more than 200 bytes"),
        ({"nodeSelector": {"a": 1}}, "nodeSelector.a", "expected string"),
        ({"nodeSelector": {"a": "v" * 64}}, "nodeSelector.a", "may not be more than 63 bytes"),
        ({"pinned": "yes"}, "pinned", "expected boolean"),
        ({"nodes": ["a"]}, "nodes", "field not declared in schema"),
    ],
)
def test_a_bad_field_is_refused_with_what_to_do(
    kubectl: Kubectl, spec: dict[str, Any], field: str, message: str
) -> None:
    with pytest.raises(Refused) as refused:
        kubectl.apply(model(**spec), "--dry-run=server")
    assert [line for line in str(refused.value).splitlines() if f"spec.{field}" in line and message in line], refused


def test_a_model_without_a_reference_is_refused(kubectl: Kubectl) -> None:
    with pytest.raises(Refused, match=r"spec\.model: Required value"):
        kubectl.apply({**model(), "spec": {}}, "--dry-run=server")


def test_the_columns_say_how_many_nodes_hold_it(kubectl: Kubectl) -> None:
    kubectl.apply(model("shown", pinned=True))
    nodes = [
        {"name": "a", "state": "Present"},
        {"name": "b", "state": "Pulling", "percent": 40},
        {"name": "c", "state": "Failed", "reason": "The disk is full."},
    ]
    status = {"nodesPresent": 1, "nodesWanted": 3, "nodes": nodes}
    assert write_status(kubectl, "shown", status)["status"] == status
    head, row = kubectl("get", "wm", "shown").splitlines()
    assert head.split() == ["NAME", "MODEL", "READY", "PRESENT", "WANTED", "PINNED", "AGE"]
    assert row.split()[:-1] == ["shown", MODEL, "1", "3", "true"]  # READY is empty: nothing has said so yet
    assert "wanmodel.wan22.dev/shown" in kubectl("get", "wan22", "--output", "name")
    kubectl("delete", "wanmodel", "shown")


def test_a_node_is_in_one_of_four_states_and_named_once(kubectl: Kubectl) -> None:
    kubectl.apply(model("states"))
    with pytest.raises(Refused, match='"Gone": supported values: "Waiting", "Pulling", "Present", "Failed"'):
        write_status(kubectl, "states", {"nodes": [{"name": "a", "state": "Gone"}]})
    with pytest.raises(Refused, match=r"status.nodes\[1\]: Duplicate value"):
        write_status(kubectl, "states", {"nodes": [{"name": "a", "state": "Present"}] * 2})
    with pytest.raises(Refused, match="should be less than or equal to 100"):
        write_status(kubectl, "states", {"nodes": [{"name": "a", "state": "Pulling", "percent": 101}]})
    kubectl("delete", "wanmodel", "states")


def write_status(kubectl: Kubectl, name: str, status: dict[str, Any]) -> Any:
    flags = ("--subresource=status", "--type=merge", "--output", "json", "--patch", json.dumps({"status": status}))
    return json.loads(kubectl("patch", "wanmodel", name, *flags))
