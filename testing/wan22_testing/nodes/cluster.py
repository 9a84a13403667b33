"""The whole cluster: brought up, a node of it crashed and booted, all of it taken down."""

from __future__ import annotations

import os
import shutil
import socket
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from wan22.errors import FailedPrecondition, Unavailable
from wan22_testing.cluster.kubectl import Kubectl, Refused
from wan22_testing.cluster.programs import API_SERVER, CONTROLLERS, Programs
from wan22_testing.nodes import control, dns, network, node, volumes
from wan22_testing.nodes.containerd import PAUSE_IMAGE, PLUGINS, kill_command, load_command
from wan22_testing.nodes.image import write_image
from wan22_testing.nodes.kubelet import remove_cgroups
from wan22_testing.nodes.layout import CONTROL_NETWORK, Layout, NodePlace, node_programs
from wan22_testing.nodes.machine import Machine

NODE_PROGRAMS = ("kubelet", "kube-proxy", "kube-router", "coredns", "pause")
DEBIAN_PROGRAMS = {
    "containerd": "containerd",
    "runc": "runc",
    "iptables": "iptables",
    "ipset": "ipset",
    "conntrack": "conntrack",
    "ip": "iproute2",
    "nsenter": "util-linux",
}
"""The packages by what they hold."""
GPU = "nvidia.com~1gpu"
GPUS_PER_NODE = 4
READY_SECONDS = 300.0
"""On a busy machine of two cores."""


class NodeCluster:
    """Two nodes and a control plane in a folder; one cluster a machine, since its networks have fixed names."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.control = Machine(layout.control, CONTROL_NETWORK, control.__name__)

    @property
    def kubectl(self) -> Kubectl:
        """The administrator's."""
        return Kubectl(Programs.find().path("kubectl"), self.layout.kubeconfig, seconds=READY_SECONDS)

    def up(self) -> None:
        """Starts it all and waits until both nodes are ready and names are found. Raises FailedPrecondition."""
        _require()
        if self.layout.root.exists():
            raise FailedPrecondition(f"{self.layout.root} exists: a cluster is there. `make cluster-down` removes it.")
        self.layout.root.mkdir(parents=True)
        network.create(self.layout)
        self._write_images()
        volumes.create_folders(self.layout)
        with socket.create_server(("127.0.0.1", 0)) as listening:
            self.control.start(str(self.layout.root), str(listening.fileno()), listening=[listening.fileno()])
        self._until(self.control, self._answers)
        for place in self.layout.nodes:
            self._machine(place).start(str(self.layout.root), place.name)
        for place in self.layout.nodes:
            self._until_ready(place)
            self.load([self.layout.root / "coredns.tar"], place)
        for manifest in (volumes.manifests(self.layout), dns.manifests()):
            self.kubectl("apply", "--server-side", "--filename=-", manifest=manifest)
        self.kubectl("rollout", "status", f"deployment/{dns.NAME}", f"--namespace={dns.NAMESPACE}", "--timeout=240s")

    def down(self) -> None:
        """Ends and removes all of it, also what is left of one that never came up."""
        for place in self.layout.nodes:
            self._machine(place).crash()
        self.control.crash()
        remove_cgroups()
        network.delete(self.layout)
        if self.layout.root.exists():
            shutil.rmtree(self.layout.root)

    def crash(self, name: str) -> None:
        """Kills a node's kubelet, containerd and containers at once; what is on its disk stays."""
        self._machine(self.layout.node(name)).crash()

    def boot(self, name: str) -> None:
        """Starts a node that crashed, and waits until it is ready."""
        place = self.layout.node(name)
        self._machine(place).start(str(self.layout.root), name)
        self._until_ready(place)

    def kill(self, pod: Mapping[str, Any]) -> None:
        """Kills the processes of a pod's first container, as a fault of theirs or the kernel would."""
        machine = self._machine(self.layout.node(pod["spec"]["nodeName"]))
        container = pod["status"]["containerStatuses"][0]["containerID"].removeprefix("containerd://")
        network.run((*machine.inside(), *kill_command(container)))

    def load(self, archives: Iterable[Path], *places: NodePlace) -> None:
        """Gives images, OCI or docker archives, to some nodes or to all; one that a node has is not loaded again."""
        for archive in archives:
            written = archive.stat()
            for place in places or self.layout.nodes:
                loaded = place.folder / f"{archive.name}-{written.st_mtime_ns}-{written.st_size}.loaded"
                if not loaded.exists():
                    network.run((*self._machine(place).inside(), *load_command(archive.resolve())))
                    loaded.touch()

    def _machine(self, place: NodePlace) -> Machine:
        return Machine(place.folder, place.network, node.__name__)

    def _write_images(self) -> None:
        programs = node_programs()
        for archive, tag in ((self.layout.pause, PAUSE_IMAGE), (self.layout.root / "coredns.tar", dns.IMAGE)):
            name = archive.stem
            write_image(archive, tag, {f"/{name}": programs.path(name)}, entrypoint=[f"/{name}"])

    def _answers(self) -> bool:
        """Whether the control plane is complete; its kubeconfig is the last that it writes."""
        try:
            return self.layout.kubeconfig.exists() and self.kubectl("get", "--raw", "/readyz") == "ok"
        except Refused:
            return False

    def _until_ready(self, place: NodePlace) -> None:
        started = datetime.now(UTC)
        self._until(self._machine(place), lambda: self._is_ready(place, started))
        patch = f'[{{"op": "add", "path": "/status/capacity/{GPU}", "value": "{GPUS_PER_NODE}"}}]'
        self.kubectl("patch", "node", place.name, "--subresource=status", "--type=json", f"--patch={patch}")

    def _is_ready(self, place: NodePlace, since: datetime) -> bool:
        try:
            found = self.kubectl.get("node", place.name)
        except Refused:
            return False
        ready = next((one for one in found["status"].get("conditions", []) if one["type"] == "Ready"), None)
        if ready is None or ready["status"] != "True" or "podCIDR" not in found["spec"]:
            return False
        return datetime.fromisoformat(ready["lastHeartbeatTime"]) >= since  # not what was so before a crash

    def _until(self, machine: Machine, happened: Callable[[], bool]) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while not happened():
            if not machine.running:
                raise Unavailable(f"{machine.log.parent.name} ended. The end of its log:\n{machine.end_of_log()}")
            if time.monotonic() > deadline:
                raise Unavailable(f"{machine.log.parent.name} is not ready after {READY_SECONDS:g} s: {machine.log}")
            time.sleep(0.5)


def _require() -> None:
    if os.geteuid() != 0:
        raise FailedPrecondition("A cluster with nodes makes network namespaces and containers: that takes root.")
    programs, nodes = Programs.find(), node_programs()
    programs.require(*API_SERVER, *CONTROLLERS, "helm")
    nodes.require(*NODE_PROGRAMS)
    packages = {package for program, package in DEBIAN_PROGRAMS.items() if shutil.which(program) is None}
    if not Path(PLUGINS).is_dir():
        packages.add("containernetworking-plugins")
    if packages:
        raise FailedPrecondition(f"Not installed: {', '.join(sorted(packages))}. Install them with apt-get.")
