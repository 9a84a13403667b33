"""Volumes for claims: a folder each, on the node that the scheduler chose, as a local provisioner makes them."""

from __future__ import annotations

import asyncio
import shutil
from contextlib import suppress
from http import HTTPStatus
from pathlib import Path

from wan22_testing.cluster.api import Api, ApiError, Object
from wan22_testing.cluster.reflector import Reflector

PROVISIONER = "wan22.dev/folders"
STORAGE_CLASS = "folders"
SELECTED = "volume.kubernetes.io/selected-node"
RETRY_SECONDS = 0.5


class Claims:
    """Makes the cluster's default storage class, which binds when a pod is scheduled, and provisions its claims."""

    def __init__(self, api: Api, folder: Path) -> None:
        self._api = api
        self._folder = folder

    async def run(self) -> None:
        """Provisions for ever, and removes what was released."""
        await self._make_class()
        async with asyncio.TaskGroup() as group:

            def see_claim(claim: Object) -> None:
                group.create_task(self._provision(claim))

            def see_volume(volume: Object) -> None:
                group.create_task(self._remove(volume))

            for path, seen in (("persistentvolumeclaims", see_claim), ("persistentvolumes", see_volume)):
                group.create_task(Reflector(self._api, f"/api/v1/{path}", seen=seen).run())

    async def _make_class(self) -> None:
        manifest = {
            "metadata": {
                "name": STORAGE_CLASS,
                "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
            },
            "provisioner": PROVISIONER,
            "volumeBindingMode": "WaitForFirstConsumer",
        }
        while True:
            try:
                await self._api.create("/apis/storage.k8s.io/v1/storageclasses", manifest)
            except ApiError as error:
                if error.code == HTTPStatus.CONFLICT:
                    return
                await asyncio.sleep(RETRY_SECONDS)
            else:
                return

    async def _provision(self, claim: Object) -> None:
        meta, spec = claim["metadata"], claim["spec"]
        node = meta.get("annotations", {}).get(SELECTED)
        if spec.get("storageClassName") != STORAGE_CLASS or node is None or spec.get("volumeName"):
            return
        name = f"pvc-{meta['uid']}"
        reference = {"kind": "PersistentVolumeClaim", "namespace": meta["namespace"], "name": meta["name"]}
        term = {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}]}
        manifest = {
            "metadata": {"name": name, "annotations": {"pv.kubernetes.io/provisioned-by": PROVISIONER}},
            "spec": {
                "capacity": {"storage": spec["resources"]["requests"]["storage"]},
                "accessModes": spec["accessModes"],
                "persistentVolumeReclaimPolicy": "Delete",
                "storageClassName": STORAGE_CLASS,
                "claimRef": {"apiVersion": "v1", **reference, "uid": meta["uid"]},
                "local": {"path": str(self._folder / name)},
                "nodeAffinity": {"required": {"nodeSelectorTerms": [term]}},
            },
        }
        with suppress(ApiError):  # it exists already, or the claim changes again
            await self._api.create("/api/v1/persistentvolumes", manifest)

    async def _remove(self, volume: Object) -> None:
        meta = volume["metadata"]
        ours = meta.get("annotations", {}).get("pv.kubernetes.io/provisioned-by") == PROVISIONER
        if ours and volume.get("status", {}).get("phase") == "Released" and not meta.get("deletionTimestamp"):
            shutil.rmtree(self._folder / meta["name"], ignore_errors=True)
            with suppress(ApiError):  # it is gone, or changes again
                await self._api.delete(f"/api/v1/persistentvolumes/{meta['name']}")
