"""What gRPC's words for a connection that does not come about mean, and what to do about it."""

from __future__ import annotations

import re
from dataclasses import dataclass

REFUSED_CERTIFICATE = re.compile(r"CERTIFICATE_VERIFY_FAILED: ([^:]+)")
"""What BoringSSL says of a peer's certificate, before its trailing `: OK` or `: Invalid certificate …`."""


@dataclass(frozen=True)
class Failure:
    """Why there is no connection."""

    why: str
    advice: str
    """Empty where nothing better is known than to look at the address and at the server."""
    reached: bool = False
    """True where somebody listens there, who cannot be spoken to."""


def explain(details: str) -> Failure:
    """The failure that a status's details tell of."""
    refused = REFUSED_CERTIFICATE.search(details)
    if refused is not None:
        renew = "renew that certificate" if "expired" in refused[1] else "name the authority that it is of"
        return Failure(f"its certificate is refused: {refused[1].strip()}", f"{renew}.", reached=True)
    if "certificate signature failure" in details:
        why = "its certificate is refused: it is not of the authority that WAN22_CA_FILE names"
        return Failure(why, "name the authority that it is of.", reached=True)
    if "WRONG_VERSION_NUMBER" in details:
        return Failure("it speaks no TLS", "unset WAN22_CA_FILE, or check the address.", reached=True)
    if details.endswith("Socket closed"):
        advice = (
            "it may speak TLS (then name its authority in WAN22_CA_FILE), or want a client certificate that has not "
            "expired; its log says so."
        )
        return Failure("it closes the connection", advice, reached=True)
    return Failure(details.rpartition(": ")[2] or "no details", "")
