"""The guard of the gateway's services: bearer credentials become a caller."""

from __future__ import annotations

import time
from collections.abc import Sequence

from wan22.errors import Reason, Unauthenticated
from wan22_gateway.identity.caller import EVERYBODY, Caller, is_called_by
from wan22_gateway.identity.keys import PREFIX, digest, is_well_formed
from wan22_gateway.identity.tokens import Tokens
from wan22_gateway.store import keys, tenants
from wan22_gateway.store.database import Database
from wan22_gateway.store.keys import Holder
from wan22_gateway.store.recall import Recall

REMEMBERED_KEYS = 4096
REMEMBERED_SECONDS = 60.0
"""A key's end counts at once, however long it is remembered."""
Metadata = Sequence[tuple[str, str | bytes]]


async def let_everybody_in(method: str, metadata: Metadata) -> None:  # noqa: ARG001  # a Guard
    """Lets everybody call everything as the tenant `default`."""
    is_called_by(EVERYBODY)


class Access:
    """Lets in who has a key of the store, or a token of the issuer that the settings name."""

    def __init__(self, database: Database, tokens: Tokens | None) -> None:
        self._database = database
        self._tokens = tokens
        self._holders: Recall[Holder | None] = Recall(database, REMEMBERED_KEYS, REMEMBERED_SECONDS)

    async def guard(self, method: str, metadata: Metadata) -> None:
        """Raises Unauthenticated, or PermissionDenied where the role is missing."""
        who = await self._caller(_bearer(metadata))
        who.check(method)
        is_called_by(who)

    async def _caller(self, credential: str) -> Caller:
        if credential.startswith(PREFIX):
            holder = await self._holder(credential)
            if holder is None or holder.end <= time.monotonic():
                text = "The API key is not known here, is revoked or has expired: ask an administrator for one."
                raise Unauthenticated(text, reason=Reason.BAD_CREDENTIALS)
            return holder.caller
        if self._tokens is None:
            text = f"The credentials are no API key of this gateway ({PREFIX}…), and it takes no tokens: use a key."
            raise Unauthenticated(text, reason=Reason.BAD_CREDENTIALS)
        who = await self._tokens.caller(credential)
        if not await self._database.read(tenants.exists, who.tenant):
            text = f"The token's tenant {who.tenant!r} is not known here: an administrator makes it."
            raise Unauthenticated(text, reason=Reason.BAD_CREDENTIALS)
        return who

    async def _holder(self, key: str) -> Holder | None:
        if not is_well_formed(key):
            return None
        found = digest(key)
        return await self._holders.get(found, ["keys"], keys.find, found)


def _bearer(metadata: Metadata) -> str:
    values = [value for name, value in metadata if name == "authorization"]
    if len(values) == 1 and isinstance(values[0], str):
        scheme, _, credential = values[0].partition(" ")
        if scheme.lower() == "bearer" and credential:
            return credential.strip()
    text = "This gateway wants credentials: send `authorization: Bearer KEY`; clients read the key from WAN22_API_KEY."
    raise Unauthenticated(text, reason=Reason.NO_CREDENTIALS)
