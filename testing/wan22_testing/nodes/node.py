"""A node's machine: `python -m wan22_testing.nodes.node ROOT NAME`."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from wan22_testing.cluster.kubectl import Kubectl, Refused
from wan22_testing.cluster.programs import Programs
from wan22_testing.nodes.containerd import containerd, load
from wan22_testing.nodes.firewall import firewall
from wan22_testing.nodes.kubelet import kubelet
from wan22_testing.nodes.layout import Layout, NodePlace
from wan22_testing.nodes.network import run
from wan22_testing.nodes.service_proxy import service_proxy

PRIVATE = ("/run", "/var/lib/cni", "/var/log")
"""Folders that containerd, kubelet and the CNI plugins write to, whatever their settings say."""
REGISTRATION_SECONDS = 120.0


def main() -> None:
    """Boots the node and runs it until it is killed."""
    root, name = sys.argv[1:]
    layout = Layout(Path(root))
    place = layout.node(name)
    for folder in PRIVATE:
        Path(folder).mkdir(exist_ok=True)
        run(("mount", "-t", "tmpfs", "tmpfs", folder))
    runtime = containerd(place)
    runtime.start()
    runtime.wait_until_ready()
    load(layout.pause)
    agent = kubelet(layout, place)
    agent.start()
    agent.wait_until_ready()
    _give_addresses(layout, place)
    for component in (service_proxy(layout, place), firewall(layout, place)):
        component.start()
    _reap()


def _give_addresses(layout: Layout, place: NodePlace) -> None:
    """Writes the pods' addresses into the Node, once it has registered."""
    kubectl = Kubectl(Programs.find().path("kubectl"), layout.kubeconfig_of("kube-router"))
    patch = f'{{"spec": {{"podCIDR": "{place.pods}", "podCIDRs": ["{place.pods}"]}}}}'
    deadline = time.monotonic() + REGISTRATION_SECONDS
    while True:
        try:
            kubectl("patch", "node", place.name, "--patch", patch)
        except Refused:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)
        else:
            return


def _reap() -> None:
    """What the first process of a namespace is there for: waits for all that end without a parent."""
    while True:
        try:
            os.wait()
        except ChildProcessError:
            return


if __name__ == "__main__":
    main()
