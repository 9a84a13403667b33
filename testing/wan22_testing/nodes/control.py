"""The control plane's machine: `python -m wan22_testing.nodes.control ROOT FILE_DESCRIPTOR`."""

from __future__ import annotations

import asyncio
import socket
import sys
from pathlib import Path

from wan22_testing.cluster.control_plane import NODES_PORT, ControlPlane
from wan22_testing.cluster.programs import Programs
from wan22_testing.nodes.doorway import Doorway
from wan22_testing.nodes.layout import CONTROL_ADDRESS, Layout

SOON = {"node-monitor-grace-period": "20s", "node-monitor-period": "2s"}
"""A crashed node is known as such sooner than by default, after 50 s."""


def main() -> None:
    """Runs it until it is killed."""
    root, descriptor = sys.argv[1:]
    layout = Layout(Path(root))
    with ControlPlane(layout.control, Programs.find(), address=CONTROL_ADDRESS, controller_manager=SOON) as plane:
        for place in layout.nodes:
            plane.kubeconfig_of(f"system:node:{place.name}", groups=["system:nodes"])
            plane.issue(place.name, hosts=[place.name, place.address])
        plane.kubeconfig_of("system:kube-proxy")
        plane.kubeconfig_of("kube-router", groups=["system:masters"])
        listening = socket.socket(fileno=int(descriptor))
        plane.write_kubeconfig(layout.kubeconfig, server=f"https://127.0.0.1:{listening.getsockname()[1]}")
        asyncio.run(Doorway(listening, CONTROL_ADDRESS, NODES_PORT).run())


if __name__ == "__main__":
    main()
