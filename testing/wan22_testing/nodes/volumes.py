"""Local volumes: folders of the nodes' disks, of a class that waits for the first pod."""

from __future__ import annotations

import shutil
from typing import Any

from wan22_testing.cluster.kubectl import Kubectl
from wan22_testing.nodes.layout import Layout, NodePlace

CLASS = "local"
SIZE = "20Gi"
VOLUMES_PER_NODE = 8


def create_folders(layout: Layout) -> None:
    """Makes the folders, which no provisioner does."""
    for place in layout.nodes:
        for number in range(VOLUMES_PER_NODE):
            (place.disks / str(number)).mkdir(parents=True, exist_ok=True)


def manifests(layout: Layout) -> dict[str, Any]:
    """A List of the class, which is the default one, and its volumes."""
    storage_class = {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": CLASS, "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
        "provisioner": "kubernetes.io/no-provisioner",
        "volumeBindingMode": "WaitForFirstConsumer",
    }
    volumes = [_volume(place, number) for place in layout.nodes for number in range(VOLUMES_PER_NODE)]
    return {"apiVersion": "v1", "kind": "List", "items": [storage_class, *volumes]}


def recycle(layout: Layout, kubectl: Kubectl) -> None:
    """Empties the volumes whose claims are gone, and offers them anew."""
    for volume in kubectl.get("persistentvolumes")["items"]:
        if volume["spec"]["storageClassName"] == CLASS and volume["status"]["phase"] == "Released":
            name = volume["metadata"]["name"]
            node, _, number = name.rpartition("-")
            folder = layout.node(node).disks / number
            shutil.rmtree(folder)
            folder.mkdir()
            kubectl("patch", "persistentvolume", name, "--type=merge", '--patch={"spec": {"claimRef": null}}')


def _volume(place: NodePlace, number: int) -> dict[str, Any]:
    expression = {"key": "kubernetes.io/hostname", "operator": "In", "values": [place.name]}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": f"{place.name}-{number}"},
        "spec": {
            "capacity": {"storage": SIZE},
            "accessModes": ["ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": "Retain",
            "storageClassName": CLASS,
            "local": {"path": str(place.disks / str(number))},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [expression]}]}},
        },
    }
