"""Times as Kubernetes writes them, and as seconds since the epoch."""

from __future__ import annotations

from datetime import UTC, datetime


def text_of(seconds: float) -> str:
    """RFC 3339, UTC, whole seconds."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def micro_text_of(seconds: float) -> str:
    """RFC 3339, UTC, microseconds: a MicroTime, as Leases and Events have."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def seconds_of(text: str) -> float:
    """Of either."""
    return datetime.fromisoformat(text).timestamp()
