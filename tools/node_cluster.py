"""`python tools/node_cluster.py up|down|load ARCHIVE...|crash NODE|boot NODE`: this machine's cluster of two nodes."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from wan22.errors import Wan22Error
from wan22_testing.nodes.cluster import NodeCluster
from wan22_testing.nodes.layout import Layout


def main() -> int:
    """Does one thing with this machine's cluster."""
    cluster = NodeCluster(Layout.usual())
    command, *names = sys.argv[1:] or [""]
    started = time.monotonic()
    try:
        match command, names:
            case "up", []:
                cluster.up()
                print(f"Up after {time.monotonic() - started:.0f} s: export KUBECONFIG={cluster.layout.kubeconfig}")
            case "down", []:
                cluster.down()
            case "load", [_, *_]:
                cluster.load([Path(name) for name in names])
            case "crash", [name]:
                cluster.crash(name)
            case "boot", [name]:
                cluster.boot(name)
            case _:
                print(__doc__, file=sys.stderr)
                return 2
    except Wan22Error as error:
        print(error.message, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
