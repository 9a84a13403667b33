"""The network of the cluster: namespaces joined by one bridge, from which no packet leaves."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from wan22_testing.nodes.layout import CONTROL_ADDRESS, CONTROL_NETWORK, Layout, NodePlace

NAMESPACES = Path("/run/netns")
BRIDGE = "fabric"
UPLINK = "uplink"
"""A node's end of its cable."""
FORWARDING = ("net.ipv4.ip_forward=1", "net.bridge.bridge-nf-call-iptables=1")
"""The second has the firewall look also at what goes from pod to pod of one node."""


def create(layout: Layout) -> None:
    """Makes a namespace for the control plane, with the bridge, and one for each node, with a cable to it."""
    _run("ip", "netns", "add", CONTROL_NETWORK)
    inside = inside_of(CONTROL_NETWORK)
    _run(*inside, "ip", "link", "set", "lo", "up")
    _run(*inside, "ip", "link", "add", BRIDGE, "type", "bridge")
    _run(*inside, "ip", "address", "add", f"{CONTROL_ADDRESS}/24", "dev", BRIDGE)
    _run(*inside, "ip", "link", "set", BRIDGE, "up")
    for place in layout.nodes:
        _create_node(place)
    for place in layout.nodes:
        for other in (CONTROL_NETWORK, *(one.network for one in layout.nodes if one != place)):
            _run(*inside_of(other), "ip", "route", "add", place.pods, "via", place.address)


def delete(layout: Layout) -> None:
    """Removes them as far as they are there; what ran inside has ended."""
    for name in (*(place.network for place in layout.nodes), CONTROL_NETWORK):
        if (NAMESPACES / name).exists():
            _run("ip", "netns", "delete", name)


def inside_of(name: str) -> tuple[str, ...]:
    """What a command begins with that runs in a namespace."""
    return ("nsenter", f"--net={NAMESPACES / name}")


def _create_node(place: NodePlace) -> None:
    _run("ip", "netns", "add", place.network)
    inside, switch = inside_of(place.network), inside_of(CONTROL_NETWORK)
    _run(*switch, "ip", "link", "add", place.name, "type", "veth", "peer", "name", UPLINK, "netns", place.network)
    _run(*switch, "ip", "link", "set", place.name, "master", BRIDGE, "up")
    _run(*inside, "ip", "link", "set", "lo", "up")
    _run(*inside, "ip", "address", "add", f"{place.address}/24", "dev", UPLINK)
    _run(*inside, "ip", "link", "set", UPLINK, "up")
    _run(*inside, "ip", "route", "add", "default", "via", CONTROL_ADDRESS)  # ends there
    _run(*inside, "sysctl", "--quiet", "--write", *FORWARDING)


def _run(*command: str) -> None:
    run(command)


def run(command: Sequence[str]) -> str:
    """Runs a command of the system and returns what it printed; its complaint is the error's text."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout
