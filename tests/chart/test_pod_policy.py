from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest

from wan22_testing.pod_policy import violations

GOOD: dict[str, Any] = {
    "kind": "Pod",
    "metadata": {"name": "one"},
    "spec": {
        "automountServiceAccountToken": False,
        "securityContext": {"runAsNonRoot": True, "runAsUser": 10001, "seccompProfile": {"type": "RuntimeDefault"}},
        "volumes": [{"name": "tmp", "emptyDir": {"sizeLimit": "1Gi"}}],
        "containers": [
            {
                "name": "one",
                "image": "registry.example:5000/wan22/gateway:0.1.0",
                "resources": {"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"memory": "1Gi"}},
                "securityContext": {
                    "allowPrivilegeEscalation": False,
                    "readOnlyRootFilesystem": True,
                    "capabilities": {"drop": ["ALL"]},
                },
            }
        ],
    },
}
CONTAINER = ("spec", "containers", 0)
SECURITY = (*CONTAINER, "securityContext")


def changed(path: tuple[Any, ...], value: object) -> dict[str, Any]:
    pod = deepcopy(GOOD)
    place: Any = pod
    for part in path[:-1]:
        place = place[part]
    place[path[-1]] = value
    return pod


def test_a_pod_in_order_has_no_violation() -> None:
    assert violations([GOOD]) == []


@pytest.mark.parametrize(
    ("path", "value", "problem"),
    [
        (("spec", "automountServiceAccountToken"), True, "gets a token of the API server"),
        (("spec", "securityContext", "runAsNonRoot"), False, "may run as root"),
        (("spec", "securityContext", "runAsUser"), 0, "may run as root"),
        (("spec", "securityContext", "seccompProfile"), {"type": "Unconfined"}, "has no seccomp profile"),
        (("spec", "hostNetwork"), True, "has hostNetwork"),
        (("spec", "volumes", 0), {"name": "disk", "hostPath": {"path": "/"}}, "has a volume of kind hostPath"),
        (("spec", "volumes", 0, "emptyDir"), {}, "has no size limit for tmp"),
        ((*SECURITY, "privileged"), True, "is privileged"),
        ((*SECURITY, "allowPrivilegeEscalation"), True, "may gain privileges"),
        ((*SECURITY, "capabilities"), {"drop": ["ALL"], "add": ["SYS_ADMIN"]}, "keeps capabilities"),
        ((*SECURITY, "readOnlyRootFilesystem"), False, "may write to its root"),
        ((*CONTAINER, "resources", "limits"), {"cpu": "1"}, "has no memory limit"),
        ((*CONTAINER, "resources", "requests"), {"cpu": "1"}, "asks for no cpu or no memory"),
        ((*CONTAINER, "ports"), [{"containerPort": 80, "hostPort": 80}], "has a port of the host"),
        ((*CONTAINER, "image"), "wan22/gateway:latest", "has the image wan22/gateway:latest, which is not always"),
        ((*CONTAINER, "image"), "host:5000/gateway", "has the image host:5000/gateway, which is not always the same"),
    ],
)
def test_each_violation_is_named(path: tuple[Any, ...], value: object, problem: str) -> None:
    (found,) = violations([changed(path, value)])
    assert found.startswith(f"Pod/one {problem}")


def test_a_token_comes_from_the_service_account_where_the_pod_says_nothing() -> None:
    pod = deepcopy(GOOD)
    del pod["spec"]["automountServiceAccountToken"]
    pod["spec"]["serviceAccountName"] = "none"
    account = {"kind": "ServiceAccount", "metadata": {"name": "none"}, "automountServiceAccountToken": False}
    assert violations([pod, account]) == []
    assert violations([pod]) == ["Pod/one gets a token of the API server."]
    assert violations([pod], token_allowed=["Pod/one"]) == []


def test_a_template_and_an_init_container_are_looked_at_too() -> None:
    pod = changed(("spec", "initContainers"), [changed((*SECURITY, "privileged"), True)["spec"]["containers"][0]])
    workload = {"kind": "Deployment", "metadata": {"name": "one"}, "spec": {"template": {"spec": pod["spec"]}}}
    assert violations([workload]) == ["Deployment/one is privileged."]
