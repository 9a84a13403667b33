"""One version that is to be kept, and how far it is."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from wan22.cache import CachedVersion as HeldVersion
from wan22.names import VersionName, VersionReference
from wan22.v1.cache_pb2 import CachedVersion


def check_reference(reference: str) -> str:
    """Returns a version's reference or name if it is one, else raises InvalidRequest."""
    if reference.startswith("models/"):
        return str(VersionName.parse(reference, "reference"))
    VersionReference.parse(reference)
    return reference


@dataclass
class KeptVersion:
    """What is known of a version; changed by its keeper alone."""

    reference: str
    state: CachedVersion.State.ValueType = CachedVersion.PENDING
    version: str = ""
    done: int = 0
    size: int = 0
    reason: str = ""
    verify_time: datetime | None = None
    held: HeldVersion | None = None
    """Its locks, while it is PRESENT."""

    def release(self) -> None:
        """Lets it be evicted."""
        if self.held is not None:
            self.held.close()
            self.held = None

    def message(self) -> CachedVersion:
        """The version as callers see it."""
        message = CachedVersion(
            reference=self.reference,
            version=self.version,
            state=self.state,
            done_bytes=self.done,
            size_bytes=self.size,
            reason=self.reason,
        )
        if self.verify_time is not None:
            message.verify_time.FromDatetime(self.verify_time)
        return message
