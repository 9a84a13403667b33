"""POST to an address that somebody else has named: HTTPS alone, checked addresses, no redirects, bounded answers."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import httpcore

from wan22.errors import FailedPrecondition, Unavailable
from wan22_gateway.webhooks.addresses import CheckedBackend, Network

MAX_CONNECTIONS = 32
IDLE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What a receiver has said."""

    status: int
    headers: Mapping[str, str]
    """By names in lower case."""
    body: bytes
    """Its start, where it was longer than asked for."""


class Poster:
    """Keeps a few connections open; use as an async context manager.

    Certificates must be of a public authority, or of the one in `ca`. A redirect is an answer as any other.
    """

    def __init__(self, allowed: Sequence[Network] = (), ca: Path | None = None) -> None:
        context = ssl.create_default_context()
        if ca is not None:
            context.load_verify_locations(ca)
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=context,
            max_connections=MAX_CONNECTIONS,
            keepalive_expiry=IDLE_SECONDS,
            network_backend=CheckedBackend(allowed),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._pool.aclose()

    async def post(self, url: str, headers: Mapping[str, str], body: bytes, *, seconds: float, most: int = 0) -> Answer:
        """Sends a JSON body, and reads at most `most` bytes of the answer's, all within `seconds`.

        Raises FailedPrecondition for an address that must not be reached, Unavailable when there is no answer.
        """
        own = {"Content-Type": "application/json", "User-Agent": "wan22", "Content-Length": str(len(body))}
        sent: list[tuple[bytes | str, bytes | str]] = [*own.items(), *headers.items()]
        # httpcore leaves a socket open whose handshake is cancelled, so that connecting has shorter limits of its own.
        limits = {"pool": seconds / 3, "connect": seconds / 3, "write": seconds, "read": seconds}
        call = self._pool.stream("POST", url, headers=sent, content=body, extensions={"timeout": limits})
        try:
            async with asyncio.timeout(seconds), call as answer:
                read = b""
                if most:
                    async for part in answer.aiter_stream():
                        read += part
                        if len(read) >= most:
                            break
                told = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in answer.headers}
                return Answer(answer.status, told, read[:most])
        except FailedPrecondition:
            raise
        except (TimeoutError, httpcore.TimeoutException):
            raise Unavailable(f"There was no answer within {seconds:g} s.") from None
        except (httpcore.NetworkError, httpcore.ProtocolError, OSError) as error:
            what = "its certificate is not trusted" if "CERTIFICATE_VERIFY_FAILED" in str(error) else "no connection"
            raise Unavailable(f"There was no answer: {what}.") from error
