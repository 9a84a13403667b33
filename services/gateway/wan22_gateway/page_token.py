"""Page tokens: where the next page starts, signed, and bound to the tenant and to the filters of the first page."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json

from wan22.errors import InvalidRequest
from wan22.v1 import generation_pb2


def encode(key: bytes, tenant: str, position: int, request: generation_pb2.ListGenerationsRequest) -> str:
    """The token for the page of rows older than a position."""
    return base64.urlsafe_b64encode(json.dumps([position, _sign(key, tenant, position, request)]).encode()).decode()


def decode(key: bytes, tenant: str, request: generation_pb2.ListGenerationsRequest) -> int | None:
    """The position in a request's token; None on the first page.

    Raises InvalidRequest for one that was not made for this tenant and these filters.
    """
    if not request.page_token:
        return None
    try:
        position, signature = json.loads(base64.urlsafe_b64decode(request.page_token))
        good = isinstance(position, int) and hmac.compare_digest(signature, _sign(key, tenant, position, request))
    except (binascii.Error, ValueError, TypeError):
        position, good = None, False
    if not good:
        text = "page_token is not one that these filters gave: start again with an empty one."
        raise InvalidRequest(text, field="page_token")
    return int(position)


def _sign(key: bytes, tenant: str, position: int, request: generation_pb2.ListGenerationsRequest) -> str:
    filters = generation_pb2.ListGenerationsRequest(
        states=request.states, variant=request.variant, labels=request.labels
    )
    signed = json.dumps([tenant, position]).encode() + filters.SerializeToString(deterministic=True)
    return hmac.new(key, signed, hashlib.sha256).hexdigest()
