"""Page tokens: where the next page starts, bound to the filters of the first."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json

from wan22.errors import InvalidRequest
from wan22.v1 import generation_pb2


def encode(position: int, request: generation_pb2.ListGenerationsRequest) -> str:
    """The token for the page of rows older than a position."""
    return base64.urlsafe_b64encode(json.dumps([position, _filters(request)]).encode()).decode()


def decode(request: generation_pb2.ListGenerationsRequest) -> int | None:
    """The position in a request's token; None on the first page. Raises InvalidRequest for one of other filters."""
    if not request.page_token:
        return None
    try:
        position, filters = json.loads(base64.urlsafe_b64decode(request.page_token))
    except (binascii.Error, ValueError):
        position, filters = None, None
    if not isinstance(position, int) or filters != _filters(request):
        text = "page_token is not one that these filters gave: start again with an empty one."
        raise InvalidRequest(text, field="page_token")
    return position


def _filters(request: generation_pb2.ListGenerationsRequest) -> str:
    filters = generation_pb2.ListGenerationsRequest(
        states=request.states, variant=request.variant, labels=request.labels
    )
    return hashlib.sha256(filters.SerializeToString(deterministic=True)).hexdigest()[:16]
