"""What every pod of wan22 keeps to: the restricted profile of Pod Security, and more that it does not ask for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

Object = dict[str, Any]
VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}
"""Kinds that the restricted profile allows."""
HOST = ("hostNetwork", "hostPID", "hostIPC")


def violations(objects: Sequence[Object], *, token_allowed: Sequence[str] = ()) -> list[str]:
    """What is wrong with the pods among rendered objects, a sentence each; those named may have an API token."""
    tokens = {
        found["metadata"]["name"]: found.get("automountServiceAccountToken", True) for found in _accounts(objects)
    }
    problems = []
    for name, pod in pods(objects):
        found = [*_of_pod(pod), *(problem for one in _containers(pod) for problem in _of_container(one))]
        mounted = pod.get("automountServiceAccountToken", tokens.get(pod.get("serviceAccountName", "default"), True))
        if mounted and name not in token_allowed:
            found.append("gets a token of the API server")
        problems += [f"{name} {problem}." for problem in found]
    return problems


def pods(objects: Sequence[Object]) -> Iterator[tuple[str, Object]]:
    """The specification of each pod among them, by its object's name."""
    for found in objects:
        name = f"{found['kind']}/{found['metadata']['name']}"
        if found["kind"] == "Pod":
            yield name, found["spec"]
        elif "template" in found.get("spec", {}) and "spec" in found["spec"]["template"]:
            yield name, found["spec"]["template"]["spec"]


def _accounts(objects: Sequence[Object]) -> Iterator[Object]:
    return (found for found in objects if found["kind"] == "ServiceAccount")


def _containers(pod: Object) -> list[Object]:
    return [*pod.get("initContainers", []), *pod["containers"]]


def _of_pod(pod: Object) -> Iterator[str]:
    security = pod.get("securityContext", {})
    if security.get("runAsNonRoot") is not True or security.get("runAsUser") == 0:
        yield "may run as root"
    if security.get("seccompProfile", {}).get("type") not in {"RuntimeDefault", "Localhost"}:
        yield "has no seccomp profile"
    for field in HOST:
        if pod.get(field):
            yield f"has {field}"
    for volume in pod.get("volumes", []):
        kinds = set(volume) - {"name"}
        if not kinds <= VOLUMES:
            yield f"has a volume of kind {', '.join(sorted(kinds))}"
        if "emptyDir" in volume and "sizeLimit" not in volume["emptyDir"]:
            yield f"has no size limit for {volume['name']}"


def _of_container(container: Object) -> Iterator[str]:
    security = container.get("securityContext", {})
    if security.get("privileged"):
        yield "is privileged"
    if security.get("allowPrivilegeEscalation") is not False:
        yield "may gain privileges"
    capabilities = security.get("capabilities", {})
    if capabilities.get("drop") != ["ALL"] or not set(capabilities.get("add", [])) <= {"NET_BIND_SERVICE"}:
        yield "keeps capabilities"
    if security.get("readOnlyRootFilesystem") is not True:
        yield "may write to its root"
    if "memory" not in container.get("resources", {}).get("limits", {}):
        yield "has no memory limit"
    if not {"cpu", "memory"} <= set(container.get("resources", {}).get("requests", {})):
        yield "asks for no cpu or no memory"
    if any("hostPort" in port for port in container.get("ports", [])):
        yield "has a port of the host"
    name, _, tag = container["image"].rpartition("/")[2].partition(":")
    if not name or tag in {"", "latest"}:
        yield f"has the image {container['image']}, which is not always the same"
