"""The kubelet of a node."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

from wan22_testing.cluster.component import Component
from wan22_testing.nodes.containerd import SOCKET
from wan22_testing.nodes.layout import DNS_ADDRESS, DOMAIN, Layout, NodePlace, node_programs

HEALTH_PORT = 10248
CGROUPS = "*/k8s.io"
"""Of containerd's containers, in each hierarchy of cgroup v1."""


def kubelet(layout: Layout, place: NodePlace) -> Component:
    """Registers the node and runs its pods."""
    config = place.folder / "kubelet.json"
    config.write_text(json.dumps(_config(layout, place), indent=1))
    flags = {
        "config": config,
        "kubeconfig": layout.kubeconfig_of(f"system-node-{place.name}"),
        "hostname-override": place.name,
        "node-ip": place.address,
        "root-dir": place.folder / "kubelet",
    }
    program = node_programs().path("kubelet")
    return Component(program, place.folder / "kubelet.log", flags, port=HEALTH_PORT, health="/healthz")


def remove_cgroups() -> None:
    """Removes the groups of containers that have ended without containerd."""
    for hierarchy in Path("/sys/fs/cgroup").glob(CGROUPS):
        for group in (*hierarchy.glob("*"), hierarchy):
            with suppress(OSError):  # a file, or in use by another containerd
                group.rmdir()


def _config(layout: Layout, place: NodePlace) -> dict[str, object]:
    certificates = layout.control / "certificates"
    resolve = place.folder / "resolv.conf"
    resolve.write_text("")  # no DNS but the cluster's
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": place.address,
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(certificates / "ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(certificates / f"{place.name}.crt"),
        "tlsPrivateKeyFile": str(certificates / f"{place.name}.key"),
        "healthzPort": HEALTH_PORT,
        "containerRuntimeEndpoint": f"unix://{SOCKET}",
        "cgroupDriver": "cgroupfs",
        "cgroupsPerQOS": False,
        "enforceNodeAllocatable": [],
        "failSwapOn": False,
        "clusterDNS": [DNS_ADDRESS],
        "clusterDomain": DOMAIN,
        "resolvConf": str(resolve),
        "podLogsDir": str(place.folder / "pods"),
        "volumePluginDir": str(place.folder / "volume-plugins"),
        # images are loaded, never pulled: nothing may remove one, neither collection nor the shortage of a disk
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "100Mi", "imagefs.available": "100Mi"},
        "nodeStatusUpdateFrequency": "5s",
        "nodeLeaseDurationSeconds": 20,
    }
