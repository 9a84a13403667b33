"""TLS of the HTTP port: the service's own certificate, looked at anew at each handshake; a client needs none."""

from __future__ import annotations

import logging
import ssl

from wan22.errors import FailedPrecondition, Reason
from wan22.tls import Tls

log = logging.getLogger(__name__)


def server_context(tls: Tls) -> ssl.SSLContext:
    """What to listen with. Raises FailedPrecondition when the files cannot be read or do not belong together.

    Browsers and OpenAI clients have no certificate of ours: callers are known by their key or token.
    """
    stamp = tls.stamp()
    current = _load(tls)

    def look(connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        nonlocal stamp, current
        try:
            now = tls.stamp()
            if now != stamp:
                current, stamp = _load(tls), now
                log.info("The certificate of %s was read again.", tls.cert)
        except FailedPrecondition as error:  # in the middle of a replacement: what was read before stays
            log.warning("%s", error.message)
        connection.context = current

    listening = _load(tls)
    listening.sni_callback = look  # called at every handshake, also of clients that name no host
    return listening


def _load(tls: Tls) -> ssl.SSLContext:
    if tls.cert is None or tls.key is None:
        raise FailedPrecondition("A server needs a certificate and its key.", reason=Reason.BAD_SETTING)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(tls.cert, tls.key)
    except (OSError, ssl.SSLError) as error:
        raise FailedPrecondition(f"{tls.cert} and {tls.key}: {error}.", reason=Reason.BAD_SETTING) from None
    return context
