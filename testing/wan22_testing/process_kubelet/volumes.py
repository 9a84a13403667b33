"""A pod's volumes, as folders of this machine."""

from __future__ import annotations

import base64
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wan22_testing.cluster.api import Api, Object
from wan22_testing.process_kubelet.environment import field_of


class NotPlayed(Exception):
    """A pod asks for what the process kubelet does not play."""


class NotYet(Exception):
    """What a pod needs is not there; it may come."""


async def make_volumes(pod: Object, folder: Path, api: Api) -> dict[str, Path]:
    """Makes a pod's volumes below a folder, and returns where each lies, by name.

    Raises NotYet while a claim is not bound, NotPlayed for other kinds of volumes, ApiError for a missing Secret.
    """
    made = {}
    for volume in pod["spec"].get("volumes", []):
        place = folder / "volumes" / volume["name"]
        claim = volume.get("persistentVolumeClaim", {}).get("claimName")
        if "ephemeral" in volume:
            claim = f"{pod['metadata']['name']}-{volume['name']}"
        if claim:
            place = await _claimed(pod["metadata"]["namespace"], claim, api)
        place.mkdir(parents=True, exist_ok=True)
        sources = volume.get("projected", {}).get("sources") or [volume]
        for source in sources:
            for name, content in (await _files(source, pod, api)).items():
                (place / name).parent.mkdir(parents=True, exist_ok=True)
                (place / name).write_bytes(content)
        made[volume["name"]] = place
    return made


def mounts_of(container: Mapping[str, Any], volumes: Mapping[str, Path]) -> dict[str, Path]:
    """Where a container's mounts lie, deepest first."""
    mounts = {
        mount["mountPath"].rstrip("/"): volumes[mount["name"]] / mount.get("subPath", "")
        for mount in container.get("volumeMounts", [])
    }
    return dict(sorted(mounts.items(), key=lambda item: len(item[0]), reverse=True))


def remove_volumes(folder: Path) -> None:
    """Removes what a pod had for itself; its claims' folders are not in there."""
    shutil.rmtree(folder, ignore_errors=True)


async def _claimed(namespace: str, claim: str, api: Api) -> Path:
    found = await api.get(f"/api/v1/namespaces/{namespace}/persistentvolumeclaims/{claim}")
    if found.get("status", {}).get("phase") != "Bound":
        raise NotYet(f"claim {claim} is not bound")
    volume = await api.get(f"/api/v1/persistentvolumes/{found['spec']['volumeName']}")
    local = volume["spec"].get("local") or volume["spec"].get("hostPath")
    if local is None:
        raise NotPlayed(f"volume {found['spec']['volumeName']} is neither local nor a hostPath")
    return Path(local["path"])


async def _files(source: Mapping[str, Any], pod: Object, api: Api) -> dict[str, bytes]:
    """What a volume, or one source of a projected one, is filled with."""
    namespace = pod["metadata"]["namespace"]
    if wanted := source.get("secret"):
        name = wanted.get("secretName") or wanted["name"]
        data = (await api.get(f"/api/v1/namespaces/{namespace}/secrets/{name}")).get("data", {})
        return _picked({key: base64.b64decode(value) for key, value in data.items()}, wanted)
    if wanted := source.get("configMap"):
        data = (await api.get(f"/api/v1/namespaces/{namespace}/configmaps/{wanted['name']}")).get("data", {})
        return _picked({key: value.encode() for key, value in data.items()}, wanted)
    if wanted := source.get("downwardAPI"):
        return {item["path"]: field_of(pod, item["fieldRef"]["fieldPath"]).encode() for item in wanted["items"]}
    if wanted := source.get("serviceAccountToken"):
        account = pod["spec"].get("serviceAccountName", "default")
        spec = {"expirationSeconds": wanted.get("expirationSeconds", 3600)}
        request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token"
        return {wanted["path"]: (await api.create(path, request))["status"]["token"].encode()}
    if {"emptyDir", "persistentVolumeClaim", "ephemeral"} & source.keys():
        return {}
    kinds = ", ".join(key for key in source if key != "name")
    raise NotPlayed(f"a volume of kind {kinds}")


def _picked(files: dict[str, bytes], wanted: Mapping[str, Any]) -> dict[str, bytes]:
    items = wanted.get("items")
    return files if items is None else {item["path"]: files[item["key"]] for item in items}
