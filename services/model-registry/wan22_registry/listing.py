"""Pages of the index, by model and newest first; a page starts after an entry that may have gone meanwhile."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from wan22.errors import InvalidRequest
from wan22.v1 import model_pb2
from wan22_registry.index import Entry

MAX_PAGE = 1000
DEFAULT_PAGE = 100
MAX_PAGE_BYTES = 2 << 20
"""Of the versions in a page: half of what a gRPC client takes in one message."""
EPOCH = datetime.fromtimestamp(0, UTC)
Position = tuple[str, int]
"""Where an entry stands: its model, and how much earlier than 1970 it was made, in microseconds."""


def page(entries: Sequence[Entry], request: model_pb2.ListModelsRequest) -> tuple[list[Entry], bool]:
    """The entries that a request asks for, and whether there are more behind them.

    Raises InvalidRequest for a page size or token that cannot be.
    """
    if not 0 <= request.page_size <= MAX_PAGE:
        text = f"page_size is {request.page_size}: use 1 to {MAX_PAGE}, or 0 for {DEFAULT_PAGE}."
        raise InvalidRequest(text, field="page_size")
    size = request.page_size or DEFAULT_PAGE
    ordered = sorted(entries, key=_position)
    if request.page_token:
        after = _decode(request.page_token)
        ordered = [entry for entry in ordered if _position(entry) > after]
    return ordered[:size], len(ordered) > size


def token_after(entry: Entry) -> str:
    """The token of the page that starts behind an entry."""
    return base64.urlsafe_b64encode(json.dumps(_position(entry)).encode()).decode()


def _position(entry: Entry) -> Position:
    return entry.model, (EPOCH - entry.create_time) // timedelta(microseconds=1)


def _decode(token: str) -> Position:
    try:
        model, time = json.loads(base64.urlsafe_b64decode(token))
    except (binascii.Error, TypeError, ValueError):
        model, time = None, None
    if not isinstance(model, str) or not isinstance(time, int):
        text = "page_token is not one that ListModels gave: start again with an empty one."
        raise InvalidRequest(text, field="page_token")
    return model, time
