"""OIDC tokens (JWT, RFC 7519; OpenID Connect Core 1.0, 3.1.3.7): signature, issuer, audience and time are checked."""

from __future__ import annotations

import asyncio
import json
import time
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jwt

from wan22.errors import Reason, Unauthenticated, Unavailable
from wan22.v1 import admin_pb2
from wan22_gateway.identity.caller import Caller

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""Signatures by a public key alone: a shared secret would let whoever verifies sign, too."""
LIFE_SECONDS = 600.0
"""How long fetched keys are used without looking again."""
PAUSE_SECONDS = 10.0
"""Shortest time between two fetches, whatever key ids tokens name."""
FETCH_SECONDS = 5.0
MAX_BYTES = 1 << 20
LEEWAY_SECONDS = 30.0
"""How far clocks may differ."""


@dataclass(frozen=True, slots=True)
class Issuer:
    """Whose tokens are taken."""

    issuer: str
    audience: str
    jwks: str
    """A file, or an https:// address, of its JSON Web Key Set (RFC 7517)."""
    tenant_claim: str
    roles_claim: str


class Tokens:
    """Makes callers of tokens."""

    def __init__(self, issuer: Issuer) -> None:
        self._issuer = issuer
        self._keys: Mapping[str, jwt.PyJWK] = {}
        self._fetched = -LIFE_SECONDS
        self._tried = -PAUSE_SECONDS
        self._lock = asyncio.Lock()

    async def caller(self, token: str) -> Caller:
        """Who a token speaks for. Raises Unauthenticated saying why not; Unavailable without the issuer's keys."""
        try:
            key = await self._key(str(jwt.get_unverified_header(token).get("kid", "")))
            claims = jwt.decode(
                token,
                key,
                algorithms=ALGORITHMS,
                issuer=self._issuer.issuer,
                audience=self._issuer.audience,
                leeway=LEEWAY_SECONDS,
                options={"require": ["exp", "iss", "aud"]},
            )
        except jwt.PyJWTError as error:
            text = f"The token is refused: {error}. Get a new one from {self._issuer.issuer}."
            raise Unauthenticated(text, reason=Reason.BAD_CREDENTIALS) from None
        tenant = claims.get(self._issuer.tenant_claim)
        if not isinstance(tenant, str) or not tenant:
            text = f"The token names no tenant: the issuer must set its claim {self._issuer.tenant_claim!r}."
            raise Unauthenticated(text, reason=Reason.BAD_CREDENTIALS)
        return Caller(tenant, _roles(claims.get(self._issuer.roles_claim)))

    async def _key(self, kid: str) -> jwt.PyJWK:
        async with self._lock:
            stale = time.monotonic() - self._fetched > LIFE_SECONDS or kid not in self._keys
            if stale and time.monotonic() - self._tried > PAUSE_SECONDS:
                self._tried = time.monotonic()
                try:
                    self._keys = await asyncio.to_thread(_fetch, self._issuer.jwks)
                    self._fetched = time.monotonic()
                except (OSError, ValueError, jwt.PyJWTError) as error:
                    if not self._keys:
                        text = f"The keys of {self._issuer.issuer} cannot be read from {self._issuer.jwks}: {error}."
                        raise Unavailable(text, retry_after=PAUSE_SECONDS) from error
        if kid not in self._keys:
            text = f"The token is signed by key {kid!r}, which is none of {self._issuer.issuer}: get a new token."
            raise Unauthenticated(text, reason=Reason.BAD_CREDENTIALS)
        return self._keys[kid]


def _fetch(source: str) -> Mapping[str, jwt.PyJWK]:
    if source.startswith("https://"):
        with urllib.request.urlopen(source, timeout=FETCH_SECONDS) as answer:  # noqa: S310  # https alone
            text = answer.read(MAX_BYTES)
    else:
        text = Path(source).read_bytes()
    found: list[dict[str, Any]] = json.loads(text)["keys"]
    signing = [key for key in found if key.get("use", "sig") == "sig" and key.get("kty") != "oct"]
    return {str(key.get("kid", "")): jwt.PyJWK(key) for key in signing}


def _roles(claim: object) -> frozenset[int]:
    """The roles of a claim, a list or words in one text; a token without any is a user's."""
    names = claim.split() if isinstance(claim, str) else claim if isinstance(claim, list) else ["user"]
    known = {name.lower(): number for name, number in admin_pb2.Role.items() if number}
    return frozenset(known[str(name).lower()] for name in names if str(name).lower() in known)
