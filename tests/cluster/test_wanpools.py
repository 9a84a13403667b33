from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from wan22.errors import InvalidRequest
from wan22.names import VersionReference
from wan22_testing.cluster.kubectl import Kubectl, Refused

MODEL = "wan2.2-t2v-a14b:fp8"


def pool(name: str = "pool", **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "wan22.dev/v1alpha1",
        "kind": "WanPool",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"model": MODEL, **spec},
    }


CONDITION = {
    "type": "Ready",
    "status": "True",
    "observedGeneration": 1,
    "lastTransitionTime": "2026-01-01T00:00:00Z",
    "reason": "WorkersReady",
    "message": "2 of 2 workers are ready.",
}


def write_status(kubectl: Kubectl, name: str, status: Mapping[str, Any], **others: Any) -> Any:
    patch = json.dumps({"status": status, **others})
    flags = ("--subresource=status", "--type=merge", "--output", "json", "--patch", patch)
    return json.loads(kubectl("patch", "wanpool", name, *flags))


def scheduling(**fields: Any) -> dict[str, Any]:
    return {"scheduling": fields}


def node_term(**expression: Any) -> dict[str, Any]:
    terms = {"nodeSelectorTerms": [{"matchExpressions": [expression]}]}
    return scheduling(affinity={"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}})


def test_a_pool_that_names_its_model_alone_gets_every_default(kubectl: Kubectl) -> None:
    assert kubectl.apply(pool(), "--dry-run=server")["spec"] == {
        "model": MODEL,
        "distilled": False,
        "defaultForVariant": False,
        "paused": False,
        "drainSeconds": 600,
        "engine": {"gpusPerWorker": 1},
        "cache": {"size": "150Gi"},
        "resources": {},
        "update": {"trigger": "OnIdle", "maxUnavailable": 1},
        "scaling": {"mode": "Operator", "minReplicas": 0, "maxReplicas": 1, "objectiveSeconds": 120},
        "scheduling": {},
    }


def test_a_pool_that_says_everything_is_kept_as_it_is(kubectl: Kubectl) -> None:
    labels = {"matchLabels": {"app": "other"}, "matchExpressions": [{"key": "tier", "operator": "Exists"}]}
    term = {"topologyKey": "kubernetes.io/hostname", "labelSelector": labels, "namespaces": ["default"]}
    node = {"matchExpressions": [{"key": "nvidia.com/gpu.product", "operator": "In", "values": ["H100"]}]}
    spec: dict[str, Any] = {
        "model": f"wan2.2-t2v-a14b:fp8@sha256:{'0' * 64}",
        "image": "registry.example:5000/wan22/worker:0.1.0",
        "distilled": True,
        "defaultForVariant": True,
        "paused": True,
        "drainSeconds": 0,
        "replicas": 3,
        "engine": {"precision": "fp8", "vramLimit": "40Gi", "gpusPerWorker": 4},
        "cache": {"storageClassName": "nvme", "size": "200Gi"},
        "resources": {"requests": {"cpu": 4, "memory": "64Gi"}, "limits": {"cpu": "8", "memory": "64Gi"}},
        "update": {"trigger": "Rolling", "maxUnavailable": "25%"},
        "scaling": {
            "mode": "External",
            "minReplicas": 1,
            "maxReplicas": 8,
            "objectiveSeconds": 60,
            "idleHoldSeconds": 0,
        },
        "scheduling": {
            "nodeSelector": {"pool": "gpu"},
            "runtimeClassName": "nvidia",
            "priorityClassName": "video",
            "tolerations": [
                {"key": "dedicated", "operator": "Equal", "value": "video", "effect": "NoSchedule"},
                {"key": "spot", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 30},
            ],
            "topologySpreadConstraints": [
                {"topologyKey": "topology.kubernetes.io/zone", "maxSkew": 2, "whenUnsatisfiable": "DoNotSchedule"}
            ],
            "affinity": {
                "nodeAffinity": {
                    "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [node]},
                    "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 10, "preference": node}],
                },
                "podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]},
                "podAntiAffinity": {
                    "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 100, "podAffinityTerm": term}]
                },
            },
        },
    }
    assert kubectl.apply(pool(**spec), "--dry-run=server")["spec"] == spec


QUANTITY = "use a quantity of bytes above 0, such as"
PERCENT = "use a number above 0, or 1% to 100%"
TERM = "affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchExpressions[0]"
PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"
REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"model": "Wan 2.2"}, "model", 'model is "Wan 2.2": use MODEL[:TAG][@sha256:DIGEST], such as wan2.2-t2v-a14b:fp8'),
    ({"model": ""}, "model", 'model is "": use MODEL'),
    ({"model": "m" * 201}, "model", "may not be more than 200 bytes"),
    ({"model": 3}, "model", "expected string"),
    ({"image": "two words"}, "image", 'image is "two words": use an image reference, such as'),
    ({"image": ""}, "image", 'image is "": use an image reference'),
    ({"image": "i" * 513}, "image", "may not be more than 512 bytes"),
    ({"distilled": "yes"}, "distilled", "expected boolean"),
    ({"defaultForVariant": 1}, "defaultForVariant", "expected boolean"),
    ({"paused": "yes"}, "paused", "expected boolean"),
    ({"drainSeconds": -1}, "drainSeconds", "-1: spec.drainSeconds in body should be greater than or equal to 0"),
    ({"drainSeconds": 86401}, "drainSeconds", "should be less than or equal to 86400"),
    ({"drainSeconds": 1.5}, "drainSeconds", "must be of type integer"),
    ({"replicas": 2}, "replicas", "replicas is read in scaling.mode External only: set that, or leave replicas out"),
    ({"replicas": -1, "scaling": {"mode": "External"}}, "replicas", "should be greater than or equal to 0"),
    ({"replicas": 1001, "scaling": {"mode": "External"}}, "replicas", "should be less than or equal to 1000"),
    ({"engine": {"precision": "int4"}}, "engine.precision", '"int4": supported values: "bf16", "fp8"'),
    ({"engine": {"gpusPerWorker": 3}}, "engine.gpusPerWorker", "use 1, 2, 4 or 8 GPUs, which divide the attention"),
    ({"engine": {"gpusPerWorker": -1}}, "engine.gpusPerWorker", "or 0 for the CPU"),
    ({"engine": {"vramLimit": "much"}}, "engine.vramLimit", QUANTITY),
    ({"engine": {"vramLimit": 0}}, "engine.vramLimit", QUANTITY),
    ({"engine": {"vramLimit": "-1Gi"}}, "engine.vramLimit", QUANTITY),
    ({"engine": {"vramLimit": "4Gi", "gpusPerWorker": 0}}, "engine.vramLimit", "leave it out where gpusPerWorker is 0"),
    ({"engine": {"threads": 4}}, "engine.threads", "field not declared in schema"),
    ({"cache": {"claimName": "a", "storageClassName": "b"}}, "cache", "give one of them"),
    ({"cache": {"claimName": ""}}, "cache.claimName", "should be at least 1 chars long"),
    ({"cache": {"storageClassName": ""}}, "cache.storageClassName", "should be at least 1 chars long"),
    ({"cache": {"size": "big"}}, "cache.size", QUANTITY),
    ({"cache": {"size": "0"}}, "cache.size", QUANTITY),
    (
        {"resources": {"limits": {"nvidia.com/gpu": 1}}},
        "resources.limits",
        "GPUs are asked for by engine.gpusPerWorker",
    ),
    ({"resources": {"requests": {"nvidia.com/gpu": 1}}}, "resources.requests", "asked for by engine.gpusPerWorker"),
    ({"resources": {"requests": {"cpu": "many"}}}, "resources.requests[cpu]", "use a quantity, at least 0, such as"),
    ({"resources": {"limits": {"cpu": -1}}}, "resources.limits[cpu]", "use a quantity, at least 0, such as"),
    (
        {"resources": {"requests": {"memory": "2Gi"}, "limits": {"memory": "1000Mi"}}},
        "resources",
        "no request may be above its limit",
    ),
    ({"update": {"trigger": "Never"}}, "update.trigger", 'supported values: "Manual", "OnIdle", "Rolling"'),
    ({"update": {"maxUnavailable": 0}}, "update.maxUnavailable", PERCENT),
    ({"update": {"maxUnavailable": "0%"}}, "update.maxUnavailable", PERCENT),
    ({"update": {"maxUnavailable": "101%"}}, "update.maxUnavailable", PERCENT),
    ({"update": {"maxUnavailable": "2"}}, "update.maxUnavailable", PERCENT),
    ({"scaling": {"mode": "Manual"}}, "scaling.mode", 'supported values: "Operator", "External"'),
    ({"scaling": {"minReplicas": 2}}, "scaling.minReplicas", "is above maxReplicas: raise the one or lower the other"),
    ({"scaling": {"minReplicas": -1}}, "scaling.minReplicas", "should be greater than or equal to 0"),
    ({"scaling": {"maxReplicas": 1001}}, "scaling.maxReplicas", "should be less than or equal to 1000"),
    ({"scaling": {"maxReplicas": -1}}, "scaling.maxReplicas", "should be greater than or equal to 0"),
    ({"scaling": {"objectiveSeconds": 0}}, "scaling.objectiveSeconds", "should be greater than or equal to 1"),
    ({"scaling": {"idleHoldSeconds": -1}}, "scaling.idleHoldSeconds", "should be greater than or equal to 0"),
    (scheduling(nodeSelector={"a": 1}), "scheduling.nodeSelector.a", "expected string"),
    (scheduling(runtimeClassName=""), "scheduling.runtimeClassName", "should be at least 1 chars long"),
    (scheduling(priorityClassName=""), "scheduling.priorityClassName", "should be at least 1 chars long"),
    (scheduling(hostNetwork=True), "scheduling.hostNetwork", "field not declared in schema"),
    (
        scheduling(tolerations=[{"key": "a", "operator": "Exists", "value": "b"}]),
        "scheduling.tolerations[0].value",
        "a toleration with operator Exists has no value",
    ),
    (
        scheduling(tolerations=[{"value": "b"}]),
        "scheduling.tolerations[0]",
        "without a key tolerates all taints: give it operator Exists, or a key",
    ),
    (
        scheduling(tolerations=[{"operator": "Exists", "tolerationSeconds": 1}]),
        "scheduling.tolerations[0].tolerationSeconds",
        "tolerationSeconds is for effect NoExecute",
    ),
    (
        scheduling(tolerations=[{"operator": "Exists", "effect": "Never"}]),
        "scheduling.tolerations[0].effect",
        'supported values: "NoSchedule", "PreferNoSchedule", "NoExecute"',
    ),
    (
        scheduling(topologySpreadConstraints=[{"maxSkew": 1}]),
        "scheduling.topologySpreadConstraints[0].topologyKey",
        "Required value",
    ),
    (
        scheduling(topologySpreadConstraints=[{"topologyKey": "a", "maxSkew": 0}]),
        "scheduling.topologySpreadConstraints[0].maxSkew",
        "should be greater than or equal to 1",
    ),
    (
        scheduling(topologySpreadConstraints=[{"topologyKey": "a"}] * 2),
        "scheduling.topologySpreadConstraints",
        'duplicate entries for key [topologyKey="a",whenUnsatisfiable="ScheduleAnyway"]',
    ),
    (node_term(key="a", operator="Near"), f"scheduling.{TERM}.operator", '"Near": supported values: "In"'),
    (node_term(operator="In"), f"scheduling.{TERM}.key", "Required value"),
    (
        scheduling(affinity={"podAffinity": {PREFERRED: [{"weight": 101, "podAffinityTerm": {"topologyKey": "a"}}]}}),
        f"scheduling.affinity.podAffinity.{PREFERRED}[0].weight",
        "should be less than or equal to 100",
    ),
    (
        scheduling(affinity={"podAntiAffinity": {REQUIRED: [{}]}}),
        f"scheduling.affinity.podAntiAffinity.{REQUIRED}[0].topologyKey",
        "Required value",
    ),
    ({"replica": 1}, "replica", "field not declared in schema"),
]


@pytest.mark.parametrize(("spec", "field", "message"), REFUSED)
def test_a_bad_field_is_refused_with_what_to_do(
    kubectl: Kubectl, spec: Mapping[str, Any], field: str, message: str
) -> None:
    with pytest.raises(Refused) as refused:
        kubectl.apply(pool(**spec), "--dry-run=server")
    assert [line for line in str(refused.value).splitlines() if f"spec.{field}" in line and message in line], refused


def test_a_pool_without_a_model_is_refused(kubectl: Kubectl) -> None:
    manifest = {**pool(), "spec": {}}
    with pytest.raises(Refused, match=r"spec\.model: Required value"):
        kubectl.apply(manifest, "--dry-run=server")


@pytest.mark.parametrize("name", ["a.b", "n" * 51])
def test_a_name_that_its_workers_could_not_bear_is_refused(kubectl: Kubectl, name: str) -> None:
    with pytest.raises(Refused, match="a pool's name has at most 50 characters and no dot"):
        kubectl.apply(pool(name), "--dry-run=server")


@pytest.mark.parametrize(
    "reference",
    [
        "wan2.2-t2v-a14b",
        "wan2.2-t2v-a14b:fp8",
        f"wan2.2-t2v-a14b:fp8@sha256:{'0' * 64}",
        f"m@sha256:{'a' * 64}",
        "m" * 63,
        f"m:{'T' * 63}",
        "m" * 64,
        f"m:{'T' * 64}",
        "-m",
        "m.",
        "M",
        "m:",
        "m:a b",
        "m@",
        f"m@sha256:{'A' * 64}",
        f"m@sha256:{'a' * 63}",
        "m\n",
        "models/m",
    ],
)
def test_a_model_reference_is_taken_if_the_registry_would_take_it(kubectl: Kubectl, reference: str) -> None:
    try:
        VersionReference.parse(reference)
    except InvalidRequest:
        with pytest.raises(Refused, match="use MODEL"):
            kubectl.apply(pool(model=reference), "--dry-run=server")
    else:
        assert kubectl.apply(pool(model=reference), "--dry-run=server")["spec"]["model"] == reference


def test_the_scale_subresource_sets_replicas_in_external_mode_and_is_refused_in_the_operators(
    kubectl: Kubectl,
) -> None:
    kubectl.apply(pool("external", scaling={"mode": "External", "maxReplicas": 5}))
    kubectl("scale", "wanpool/external", "--replicas=3")
    assert kubectl.get("wanpool", "external")["spec"]["replicas"] == 3
    kubectl.apply(pool("own", scaling={"maxReplicas": 5}))
    with pytest.raises(Refused, match=r"replicas is read in scaling\.mode External only"):
        kubectl("scale", "wanpool/own", "--replicas=3")
    kubectl("delete", "wanpools", "external", "own")


def test_the_scale_subresource_shows_an_autoscaler_what_there_is(kubectl: Kubectl) -> None:
    kubectl.apply(pool("scaled", replicas=2, scaling={"mode": "External", "maxReplicas": 5}))
    write_status(kubectl, "scaled", {"replicas": 1, "selector": "wan22.dev/pool=scaled"})
    scale = json.loads(kubectl("get", "--raw", "/apis/wan22.dev/v1alpha1/namespaces/default/wanpools/scaled/scale"))
    assert (scale["kind"], scale["spec"], scale["status"]) == (
        "Scale",
        {"replicas": 2},
        {"replicas": 1, "selector": "wan22.dev/pool=scaled"},
    )
    kubectl("delete", "wanpool", "scaled")


def test_spec_and_status_are_written_apart(kubectl: Kubectl) -> None:
    created = kubectl.apply({**pool("apart"), "status": {"replicas": 7}})
    assert (created["metadata"]["generation"], "status" in created) == (1, False)
    written = write_status(kubectl, "apart", {"replicas": 7}, spec={"model": "other"})
    assert (written["spec"]["model"], written["status"]["replicas"]) == (MODEL, 7)
    assert written["metadata"]["generation"] == 1
    changed = kubectl.apply(pool("apart", paused=True))
    assert (changed["metadata"]["generation"], changed["status"]["replicas"]) == (2, 7)
    kubectl("delete", "wanpool", "apart")


def test_a_condition_has_what_conditions_have(kubectl: Kubectl) -> None:
    kubectl.apply(pool("conditions"))
    with pytest.raises(Refused, match=r"status.conditions\[0\].reason: Required value"):
        write_status(kubectl, "conditions", {"conditions": [{**CONDITION, "reason": None}]})
    with pytest.raises(
        Refused, match='status: Unsupported value: "true": supported values: "True", "False", "Unknown"'
    ):
        write_status(kubectl, "conditions", {"conditions": [{**CONDITION, "status": "true"}]})
    assert write_status(kubectl, "conditions", {"conditions": [CONDITION]})["status"]["conditions"] == [CONDITION]
    kubectl("wait", "--for=condition=Ready", "wanpool/conditions", "--timeout=10s")
    kubectl("delete", "wanpool", "conditions")


def test_the_columns_say_what_a_pool_does(kubectl: Kubectl) -> None:
    kubectl.apply(pool("shown", scaling={"maxReplicas": 4}))
    status = {
        "conditions": [CONDITION],
        "readyReplicas": 2,
        "desiredReplicas": 3,
        "variant": "t2v-a14b",
        "modelVersion": "models/wan2.2-t2v-a14b/versions/sha256:0",
        "demand": {"queued": 5},
        "decision": {"reason": "Five wait longer than 120 s."},
    }
    write_status(kubectl, "shown", status)
    head, row = kubectl("get", "wp", "shown").splitlines()
    assert head.split() == ["NAME", "MODEL", "READY", "WORKERS", "DESIRED", "MAX", "QUEUED", "AGE"]
    assert row.split()[:-1] == ["shown", MODEL, "True", "2", "3", "4", "5"]
    head, row = kubectl("get", "wan22", "--field-selector", "metadata.name=shown", "--output", "wide").splitlines()
    assert head.split()[-3:] == ["VARIANT", "VERSION", "WHY"]
    assert row.startswith("wanpool.wan22.dev/shown")
    assert row.endswith("models/wan2.2-t2v-a14b/versions/sha256:0   Five wait longer than 120 s.")
    kubectl("delete", "wanpool", "shown")


def test_the_kind_is_structural_and_established(kubectl: Kubectl) -> None:
    conditions = kubectl.get("crd", "wanpools.wan22.dev")["status"]["conditions"]
    states = {condition["type"]: condition["status"] for condition in conditions}
    assert states == {"NamesAccepted": "True", "Established": "True"}  # NonStructuralSchema would stand beside them
