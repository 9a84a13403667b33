"""TLS between services: one authority, and a certificate a service."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import grpc

from wan22.errors import FailedPrecondition, Reason

log = logging.getLogger(__name__)
Stamp = tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Tls:
    """PEM files, read again when they change: certificates are replaced while services run."""

    ca: Path
    """The authority that peers' certificates are of."""
    cert: Path | None = None
    """Our own certificate, with its chain; a client may have none."""
    key: Path | None = None

    def stamp(self) -> Stamp:
        """Changes when a file does. Raises FailedPrecondition naming a file that cannot be read."""
        return tuple((found.st_mtime_ns, found.st_ino) for found in map(_stat, self._files()))

    def channel_credentials(self) -> grpc.ChannelCredentials:
        """What a client connects with, by the files as they are now. Raises FailedPrecondition."""
        return grpc.ssl_channel_credentials(
            _read(self.ca),
            None if self.key is None else _read(self.key),
            None if self.cert is None else _read(self.cert),
        )

    def server_credentials(self, *, require_client: bool) -> grpc.ServerCredentials:
        """What a server listens with; looked at anew at each handshake. Raises FailedPrecondition."""
        stamp = self.stamp()
        initial = self._server_configuration()

        def fetch() -> grpc.ServerCertificateConfiguration | None:
            nonlocal stamp
            try:
                now = self.stamp()
                if now == stamp:
                    return None
                changed = self._server_configuration()
            except FailedPrecondition as error:  # in the middle of a replacement: what was read before stays
                log.warning("%s", error.message)
                return None
            stamp = now
            log.info("The certificate of %s was read again.", self.cert)
            return changed

        keep = cast("Callable[[], grpc.ServerCertificateConfiguration]", fetch)  # None, too: nothing has changed
        return grpc.dynamic_ssl_server_credentials(initial, keep, require_client_authentication=require_client)

    def _server_configuration(self) -> grpc.ServerCertificateConfiguration:
        if self.cert is None or self.key is None:
            raise FailedPrecondition("A server needs a certificate and its key.", reason=Reason.BAD_SETTING)
        return grpc.ssl_server_certificate_configuration([(_read(self.key), _read(self.cert))], _read(self.ca))

    def _files(self) -> Iterable[Path]:
        return (file for file in (self.ca, self.cert, self.key) if file is not None)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise _unreadable(path, error) from None


def _stat(path: Path) -> os.stat_result:
    try:
        return path.stat()
    except OSError as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: OSError) -> FailedPrecondition:
    return FailedPrecondition(f"{path} cannot be read: {error.strerror}.", reason=Reason.BAD_SETTING)
