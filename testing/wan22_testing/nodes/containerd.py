"""containerd with runc and the CNI plugins, as Debian has them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from wan22_testing.cluster.component import Component
from wan22_testing.nodes.layout import POD_ADDRESSES, NodePlace
from wan22_testing.nodes.network import run

STATE = Path("/run/containerd")
"""On the machine's own tmpfs: gone when it crashes, as on any machine."""
SOCKET = STATE / "containerd.sock"
CTR = ("ctr", f"--address={SOCKET}", "--namespace=k8s.io")
PLUGINS = "/usr/lib/cni"
PAUSE_IMAGE = "localhost/pause:1"
METRICS_PORT = 1338

CONFIG = """\
version = 2
root = "{root}"
state = "{state}"
[grpc]
  address = "{socket}"
[metrics]
  address = "127.0.0.1:{metrics}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{plugins}"
    conf_dir = "{networks}"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
"""


def containerd(place: NodePlace) -> Component:
    """The node's container runtime."""
    program = Path(shutil.which("containerd") or "/usr/bin/containerd")
    networks = place.folder / "cni"
    networks.mkdir(exist_ok=True)
    (networks / "10-wan22.conflist").write_text(json.dumps(_network(place)))
    config = place.folder / "containerd.toml"
    config.write_text(
        CONFIG.format(
            root=place.folder / "containerd",
            state=STATE,
            socket=SOCKET,
            metrics=METRICS_PORT,
            pause=PAUSE_IMAGE,
            plugins=PLUGINS,
            networks=networks,
        )
    )
    log = place.folder / "containerd.log"
    return Component(program, log, {"config": config}, port=METRICS_PORT, health="/v1/metrics")


def load_command(archive: Path) -> tuple[str, ...]:
    """The command, on the machine, that gives an image to its containers."""
    return (*CTR, "images", "import", str(archive))


def kill_command(container: str) -> tuple[str, ...]:
    """The command, on the machine, that kills a container's processes."""
    return (*CTR, "tasks", "kill", "--all", "--signal=SIGKILL", container)


def load(archive: Path) -> None:
    """Gives an image, an OCI or docker archive, to the containers of the machine that this runs on."""
    run(load_command(archive))


def _network(place: NodePlace) -> dict[str, object]:
    bridge = {
        "type": "bridge",
        "bridge": "cni0",
        "isDefaultGateway": True,
        "hairpinMode": True,
        "ipMasq": False,  # other nodes and the firewall see who asks
        "ipam": {"type": "host-local", "ranges": [[{"subnet": place.pods}]], "routes": [{"dst": POD_ADDRESSES}]},
    }
    portmap = {"type": "portmap", "capabilities": {"portMappings": True}}
    return {"cniVersion": "0.4.0", "name": "wan22", "plugins": [bridge, portmap]}
