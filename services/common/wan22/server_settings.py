"""Settings that every service has: how it listens, and by which certificate it is known."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Self

from pydantic import model_validator

from wan22.settings import Settings
from wan22.tls import Tls


class ServerSettings(Settings):
    """Where a service listens. Its certificate is its client certificate, too."""

    host: str = "127.0.0.1"
    """Address to listen on. Beyond this machine only with a certificate, unless `plaintext` is on."""
    tls_ca: Path | None = None
    """PEM file of the authority of all services' certificates. The three TLS files are given together or not at all."""
    tls_cert: Path | None = None
    """PEM file of this service's certificate; read again when it changes."""
    tls_key: Path | None = None
    """PEM file of its key."""
    plaintext: bool = False
    """Listens beyond this machine without TLS: for networks that encrypt by themselves, such as a mesh."""

    @property
    def tls(self) -> Tls | None:
        """The files, if there are any."""
        return None if self.tls_ca is None else Tls(self.tls_ca, self.tls_cert, self.tls_key)

    @model_validator(mode="after")
    def _check_tls(self) -> Self:
        given = [self.tls_ca, self.tls_cert, self.tls_key]
        if any(given) and not all(given):
            raise ValueError("tls_ca, tls_cert and tls_key are given together or not at all")
        if not any(given) and not self.plaintext and not _is_loopback(self.host):
            what_to_do = "give tls_ca, tls_cert and tls_key, or plaintext"
            raise ValueError(f"host {self.host} is not this machine alone: {what_to_do}")
        return self


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"
