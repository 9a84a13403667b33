"""A container's command line and variables, as its spec says."""

from __future__ import annotations

import base64
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wan22_testing.cluster.api import Api, Object
from wan22_testing.process_kubelet.images import Image

INHERITED = ("LANG", "TMPDIR", "OMP_NUM_THREADS", "COVERAGE_PROCESS_START", "COVERAGE_PROCESS_CONFIG")
"""What processes have of this one; a container has nothing of its node's."""
EVERY_ADDRESS = "0.0.0.0"  # noqa: S104  # nothing listens on it here
_REFERENCE = re.compile(r"\$\$|\$\(([A-Za-z_][A-Za-z0-9_.-]*)\)")


async def environment_of(
    container: Mapping[str, Any], pod: Object, image: Image, api: Api, folders: Mapping[str, Path]
) -> dict[str, str]:
    """All variables of a container; `folders` are of its volumes, by where it wants them mounted.

    Raises KeyError naming a field, or ApiError for a Secret or ConfigMap, that is not there.
    """
    meta = pod["metadata"]
    place = {
        "pod_ip": pod["status"]["podIP"],
        "pod_name": meta["name"],
        "node_name": pod["spec"]["nodeName"],
    }
    inherited = {name: os.environ[name] for name in INHERITED if name in os.environ}
    path = f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}"
    variables = {**inherited, "PATH": path, "HOSTNAME": meta["name"]}
    variables |= {name: value.format(**place) for name, value in image.environment.items()}
    for entry in container.get("env", []):
        source = entry.get("valueFrom")
        value = entry.get("value", "") if source is None else await _from(source, pod, container, api)
        if value is not None:
            variables[entry["name"]] = _here(expand(value, variables), pod, folders)
    return variables


def command_of(
    container: Mapping[str, Any], pod: Object, image: Image, variables: Mapping[str, str], folders: Mapping[str, Path]
) -> list[str]:
    """The command line of a container."""
    command = container.get("command") or image.entrypoint
    return [_here(expand(word, variables), pod, folders) for word in (*command, *container.get("args", []))]


def expand(text: str, variables: Mapping[str, str]) -> str:
    """Fills in $(NAME), as Kubernetes does: $$ is one dollar, and an unknown name stays as it is."""
    return _REFERENCE.sub(
        lambda found: "$" if found[0] == "$$" else variables.get(found[1], found[0]),
        text,
    )


def _here(text: str, pod: Object, folders: Mapping[str, Path]) -> str:
    """A word or a `NAME=VALUE` of a container as it is to be read outside of one.

    A path below a mount is where its volume lies, and all addresses of the pod are the one that it has here.
    """
    head, equals, value = text.rpartition("=")
    if value == EVERY_ADDRESS:
        return f"{head}{equals}{pod['status']['podIP']}"
    for mount, folder in folders.items():
        if value == mount or value.startswith(f"{mount}/"):
            return f"{head}{equals}{folder}{value.removeprefix(mount)}"
    return text


async def _from(source: Mapping[str, Any], pod: Object, container: Mapping[str, Any], api: Api) -> str | None:
    if reference := source.get("fieldRef"):
        return field_of(pod, reference["fieldPath"])
    if reference := source.get("resourceFieldRef"):
        kind, _, name = reference["resource"].partition(".")
        return str(container.get("resources", {}).get(kind, {})[name])
    for kind, collection in (("secretKeyRef", "secrets"), ("configMapKeyRef", "configmaps")):
        if reference := source.get(kind):
            namespace = pod["metadata"]["namespace"]
            found = await api.get(f"/api/v1/namespaces/{namespace}/{collection}/{reference['name']}")
            data = found.get("data", {})
            if reference["key"] not in data and reference.get("optional"):
                return None
            value: str = data[reference["key"]]
            return base64.b64decode(value).decode() if collection == "secrets" else value
    raise KeyError(f"valueFrom {', '.join(source)}")


def field_of(pod: Object, path: str) -> str:
    """What the downward API says for a field, such as metadata.uid or metadata.labels['app']."""
    if found := re.fullmatch(r"metadata\.(labels|annotations)\['(.+)'\]", path):
        return str(pod["metadata"].get(found[1], {}).get(found[2], ""))
    value: Any = pod
    for name in path.split("."):
        value = value[name]
    return str(value)
