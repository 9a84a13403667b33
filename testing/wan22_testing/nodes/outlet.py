"""A way out of the cluster: a port of the control plane's address that leads to one of this machine's."""

from __future__ import annotations

import asyncio
import ctypes
import os
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Self

from wan22.bound_to_parent import bound_to_parent
from wan22_testing.nodes.doorway import Doorway
from wan22_testing.nodes.layout import CONTROL_ADDRESS, CONTROL_NETWORK
from wan22_testing.nodes.network import NAMESPACES

CLONE_NEWNET = 0x40000000
"""Of sched.h: a network namespace is entered."""


class Outlet:
    """Leads pods to a service that listens on 127.0.0.1 of this machine; use as a context manager."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0
        """What pods connect to, at CONTROL_ADDRESS."""

    def __enter__(self) -> Self:
        with ThreadPoolExecutor(1) as thread:  # only this thread goes there, and ends there
            listening = thread.submit(_listen_inside).result()
        with listening:
            self.port = listening.getsockname()[1]
            command = [sys.executable, "-m", __name__, str(listening.fileno()), str(self._port)]
            self._process = subprocess.Popen(bound_to_parent(command), pass_fds=[listening.fileno()])
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()


def _listen_inside() -> socket.socket:
    """A socket of the control plane's network, in which it stays whoever has it."""
    with (NAMESPACES / CONTROL_NETWORK).open("rb") as namespace:
        if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), namespace.name)
    return socket.create_server((CONTROL_ADDRESS, 0))


def main() -> None:
    """Passes on until it is killed."""
    descriptor, port = (int(argument) for argument in sys.argv[1:])
    asyncio.run(Doorway(socket.socket(fileno=descriptor), "127.0.0.1", port).run())


if __name__ == "__main__":
    main()
