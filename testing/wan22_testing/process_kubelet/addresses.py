"""Addresses of pods: each its own on this machine's loopback network, as pods have their own on a cluster's."""

from __future__ import annotations

import socket
from contextlib import closing
from ipaddress import IPv4Address

from wan22.errors import ResourceExhausted

CLAIM_PORT = 10250
"""Where a real kubelet listens."""
FIRST_NETWORK, LAST_NETWORK = 16, 254


class Addresses:
    """One network 127.N.0.0/16, which no other test cluster of this machine uses; close it to free it."""

    def __init__(self) -> None:
        self._claim, self._network = _claim()
        self._next = 256  # 127.N.1.0: nobody's pods but ours, past the network's own addresses
        self._free: list[str] = []

    def take(self) -> str:
        """An address that no pod has."""
        if self._free:
            return self._free.pop(0)
        self._next += 1
        return str(IPv4Address(f"127.{self._network}.0.0") + self._next)

    def give_back(self, address: str) -> None:
        """For another pod; the longest unused is taken first."""
        self._free.append(address)

    def close(self) -> None:
        """Frees the network."""
        self._claim.close()


def _claim() -> tuple[socket.socket, int]:
    for network in range(FIRST_NETWORK, LAST_NETWORK + 1):
        claim = socket.socket()
        try:
            claim.bind((f"127.{network}.0.1", CLAIM_PORT))
            claim.listen(1)
        except OSError:  # another process has it
            with closing(claim):
                continue
        return claim, network
    raise ResourceExhausted("Every network of 127.0.0.0/8 is claimed by a test cluster: end some of them.")
