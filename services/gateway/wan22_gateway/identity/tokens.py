"""OIDC tokens (JWT, RFC 7519; OpenID Connect Core 1.0, 3.1.3.7): signature, issuer, audience and time are checked."""

from __future__ import annotations

import asyncio
import json
import logging
import time
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

import jwt

from wan22.errors import Reason, Unauthenticated, Unavailable
from wan22.v1 import admin_pb2
from wan22_gateway.identity.caller import Caller

log = logging.getLogger(__name__)
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""Signatures by a public key alone: a shared secret would let whoever verifies sign, too."""
LIFE_SECONDS = 600.0
"""How long fetched keys are used without looking again."""
PAUSE_SECONDS = 10.0
"""Shortest time between two fetches, whatever key ids tokens name."""
FETCH_SECONDS = 5.0
"""How long an issuer may take to answer, and then again to send its keys."""
MAX_BYTES = 1 << 20
"""Most that its answer may have."""
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
        self._failure = ""
        """Why there are no keys, if there are none."""
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
        if not isinstance(tenant, str) or not tenant or "\0" in tenant:
            text = f"The token names no tenant: the issuer must set its claim {self._issuer.tenant_claim!r}."
            raise Unauthenticated(text, reason=Reason.BAD_CREDENTIALS)
        return Caller(tenant, _roles(claims.get(self._issuer.roles_claim)), "a token")

    async def _key(self, kid: str) -> jwt.PyJWK:
        fresh = time.monotonic() - self._fetched <= LIFE_SECONDS
        if kid in self._keys and (fresh or self._lock.locked()):  # an issuer that is slow holds up who found out alone
            return self._keys[kid]
        async with self._lock:
            if time.monotonic() - self._tried > PAUSE_SECONDS:
                await self._fetch_keys()
        if not self._keys:
            raise Unavailable(self._failure, retry_after=PAUSE_SECONDS)
        if kid not in self._keys:
            text = f"The token is signed by key {kid!r}, which is none of {self._issuer.issuer}: get a new token."
            raise Unauthenticated(text, reason=Reason.BAD_CREDENTIALS)
        return self._keys[kid]

    async def _fetch_keys(self) -> None:
        """Takes the issuer's keys of now; where they are not to be had, those that are here go on to count."""
        self._tried = time.monotonic()
        try:
            async with asyncio.timeout(2 * FETCH_SECONDS):
                self._keys = await asyncio.to_thread(_fetch, self._issuer.jwks)
            self._fetched = time.monotonic()
            self._failure = f"{self._issuer.issuer} has no keys at {self._issuer.jwks}."
        except (OSError, ValueError, HTTPException) as error:
            self._failure = f"The keys of {self._issuer.issuer} cannot be read from {self._issuer.jwks}: {error}."
            log.warning("%s", self._failure)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Follows nobody elsewhere, and so never to an address that is not encrypted."""

    def redirect_request(self, *_: object) -> None:
        return None


def _fetch(source: str) -> Mapping[str, jwt.PyJWK]:
    """The signing keys of a set, by id. Raises OSError, ValueError, HTTPException."""
    if source.startswith("https://"):
        opener = urllib.request.build_opener(_NoRedirect)
        with opener.open(source, timeout=FETCH_SECONDS) as answer:
            text = answer.read(MAX_BYTES + 1)
        if len(text) > MAX_BYTES:
            raise ValueError(f"it has more than {MAX_BYTES} bytes")
    else:
        text = Path(source).read_bytes()
    content = json.loads(text)
    if not isinstance(content, dict) or not isinstance(content.get("keys"), list):
        raise ValueError("it is no JSON Web Key Set")  # noqa: TRY004  # of the content
    found: dict[str, jwt.PyJWK] = {}
    for entry in content["keys"]:
        if isinstance(entry, dict) and entry.get("use", "sig") == "sig" and entry.get("kty") != "oct":
            try:
                found[str(entry.get("kid", ""))] = jwt.PyJWK(entry)
            except jwt.PyJWTError as error:  # of a kind that is not known here: left out (RFC 7517, 5)
                log.info("Key %r of %s is not used: %s", entry.get("kid"), source, error)
    return found


def _roles(claim: object) -> frozenset[int]:
    """The roles of a claim, a list or words in one text; a token without the claim is a user's."""
    if claim is None:
        return frozenset({admin_pb2.USER})
    names = claim.split() if isinstance(claim, str) else claim if isinstance(claim, list) else []
    known = {name.lower(): number for name, number in admin_pb2.Role.items() if number}
    return frozenset(known[str(name).lower()] for name in names if str(name).lower() in known)
