"""Who may do what at the registry, by the name of a certificate; and the log of who has changed what."""

from __future__ import annotations

import logging
from typing import Any

import grpc

from wan22.peers import Peers, names_in, names_of
from wan22_registry.settings import RegistrySettings

log = logging.getLogger("wan22_registry.audit")
PUBLISHING = ("PushBlob", "PublishVersion")
ADMINISTRATION = (
    "PinVersion",
    "UnpinVersion",
    "ApproveAdapter",
    "UnapproveAdapter",
    "DeleteVersion",
    "VerifyVersion",  # which changes nothing, but reads all that there is of a version
)
"""Methods of ModelService; all others read."""


def peers_of(settings: RegistrySettings) -> Peers:
    """Who may call which method."""
    publishers, admins = names_in(settings.tls_publishers), names_in(settings.tls_admins)
    only = dict.fromkeys(PUBLISHING, publishers) | dict.fromkeys(ADMINISTRATION, admins)
    return Peers(names_in(settings.tls_peers), only)


def audit(context: grpc.aio.ServicerContext[Any, Any], what: str) -> None:
    """Logs a change, and by whose certificate."""
    names = ", ".join(sorted(names_of(context.auth_context())))
    log.info("%s By %s.", what, f"the certificate {names}" if names else "a caller without a certificate")
