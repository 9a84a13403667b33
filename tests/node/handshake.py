"""What a pod's port says by itself: which certificate it shows, and whether it speaks plaintext."""

from __future__ import annotations

import json
from dataclasses import dataclass

from .release import Release

PROBE = r"""
import json, socket, ssl, sys
port, role, protocol = int(sys.argv[1]), sys.argv[2], sys.argv[3]
def connected():
    return socket.create_connection((socket.gethostbyname(socket.gethostname()), port), 60)
context = ssl.create_default_context(cafile="/etc/wan22/tls/ca.crt")
context.load_cert_chain("/etc/wan22/tls/tls.crt", "/etc/wan22/tls/tls.key")
context.set_alpn_protocols([protocol])
with connected() as plain, context.wrap_socket(plain, server_hostname=role) as secure:
    shown = ssl.DER_cert_to_PEM_cert(secure.getpeercert(True))
with connected() as plain:
    plain.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))
    try:
        said = plain.recv(9)
    except ConnectionResetError:
        said = b""
print(json.dumps({"certificate": shown.strip(), "plaintext": said[3:4] == b"\x04"}))
"""
"""Run in the pod itself: no policy is in the way, a worker is on its pod's address alone, and the files are there.

What an HTTP/2 server answers in plaintext begins with its settings.
"""


@dataclass(frozen=True)
class Shown:
    """By one port."""

    certificate: str
    """As PEM; of the authority that the pod knows, and with the role's name."""
    plaintext: bool
    """Whether it answers HTTP/2 without TLS."""


@dataclass(frozen=True)
class Port:
    """One of a pod, such as `deployment/NAME`, which has a role's certificate."""

    target: str
    number: int
    role: str
    protocol: str = "h2"

    def shown(self, release: Release) -> Shown:
        """What it shows now."""
        asked = (str(self.number), self.role, self.protocol)
        said = release.kubectl("exec", self.target, *release.inside, "--", "python", "-c", PROBE, *asked)
        return Shown(**json.loads(said))
