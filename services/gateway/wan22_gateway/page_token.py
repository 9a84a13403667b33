"""Page tokens: where the next page starts, signed, and bound to the tenant and to the filters of the first page."""

from __future__ import annotations

import base64
import binascii
import copy
import hashlib
import hmac
import json
from typing import TypeVar

from wan22.errors import InvalidRequest
from wan22.v1.generation_pb2 import ListGenerationsRequest
from wan22.v1.webhook_pb2 import ListDeliveriesRequest

Listing = ListGenerationsRequest | ListDeliveriesRequest
Position = TypeVar("Position", int, str)


def encode(key: bytes, tenant: str, position: int | str, request: Listing) -> str:
    """The token for the page of rows older than a position."""
    return base64.urlsafe_b64encode(json.dumps([position, _sign(key, tenant, position, request)]).encode()).decode()


def decode(key: bytes, tenant: str, request: Listing, kind: type[Position]) -> Position | None:
    """The position, of the kind that this listing has, in a request's token; None on the first page.

    Raises InvalidRequest for one that was not made for this tenant and these filters.
    """
    if not request.page_token:
        return None
    try:
        position, signature = json.loads(base64.urlsafe_b64decode(request.page_token))
        good = hmac.compare_digest(signature, _sign(key, tenant, position, request))
    except (binascii.Error, ValueError, TypeError):
        position, good = None, False
    if not good or not isinstance(position, kind):
        text = "page_token is not one that these filters gave: start again with an empty one."
        raise InvalidRequest(text, field="page_token")
    return position


def _sign(key: bytes, tenant: str, position: int | str, request: Listing) -> str:
    filters = copy.copy(request)
    for field in ("page_size", "page_token"):
        filters.ClearField(field)
    signed = json.dumps([tenant, position]).encode() + filters.SerializeToString(deterministic=True)
    return hmac.new(key, signed, hashlib.sha256).hexdigest()
