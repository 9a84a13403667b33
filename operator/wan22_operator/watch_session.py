"""The connections of kopf's watches, which bring an object's metadata alone where nothing else of it is looked at."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import aiohttp
import kopf

from wan22_operator.resources import NETWORK_POLICY, SERVICE, SERVICE_ACCOUNT, WAN_MODEL, WAN_POOL

NAMED = frozenset(kind.plural for kind in (WAN_POOL, WAN_MODEL, SERVICE, SERVICE_ACCOUNT, NETWORK_POLICY))
"""Collections of which an event wakes a loop and says no more."""
METADATA = "application/json;as={};g=meta.k8s.io;v=v1"
ONE, MANY = "PartialObjectMetadata", "PartialObjectMetadataList"


class _Answer(aiohttp.ClientResponse):
    async def json(self, **given: Any) -> Any:
        """As kopf can take it: a list of metadata that is empty comes as none."""
        answer = await super().json(**given)
        if isinstance(answer, dict) and answer.get("kind") == MANY:
            answer["items"] = answer.get("items") or []
            for found in answer["items"]:
                found["metadata"].pop("managedFields", None)  # most of it, and kopf keeps all of a list for a while
        return answer


def watch_session(info: kopf.ConnectionInfo) -> aiohttp.ClientSession:
    """A session with the credentials of a connection."""
    tracing = aiohttp.TraceConfig()
    tracing.on_request_start.append(_ask_for_metadata)
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, ssl=info.as_ssl_context()),
        headers=info.as_http_headers(),
        response_class=_Answer,
        trace_configs=[tracing],
    )


async def _ask_for_metadata(
    _session: aiohttp.ClientSession, _context: SimpleNamespace, asked: aiohttp.TraceRequestStartParams
) -> None:
    if asked.url.name in NAMED:
        asked.headers["Accept"] = METADATA.format(ONE if "watch" in asked.url.query else MANY)
