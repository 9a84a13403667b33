"""Adapters as clients see them."""

from __future__ import annotations

from wan22.adapter import Adapter
from wan22.v1 import model_pb2

_EXPERTS = {
    "high": model_pb2.Adapter.HIGH,
    "low": model_pb2.Adapter.LOW,
    "both": model_pb2.Adapter.BOTH,
}


def adapter_message(adapter: Adapter, *, approved: bool) -> model_pb2.Adapter:
    """What a version says of its adapter."""
    return model_pb2.Adapter(
        target_expert=_EXPERTS[adapter.target_expert],
        min_strength=adapter.min_strength,
        max_strength=adapter.max_strength,
        turbo=adapter.turbo,
        approved=approved,
    )
