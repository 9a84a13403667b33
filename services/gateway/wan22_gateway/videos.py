"""A generation's video, for whoever may have it."""

from __future__ import annotations

from wan22.errors import FailedPrecondition, NotFound, Reason
from wan22_gateway.lifecycle import FINAL, State, timestamp
from wan22_gateway.store import generations
from wan22_gateway.store.database import Transaction
from wan22_gateway.store.generations import GenerationRow


def get(tx: Transaction, tenant: str, generation: str) -> GenerationRow:
    """The row of a generation whose video is there.

    Raises NotFound, FailedPrecondition (VIDEO_NOT_READY), NotFound (VIDEO_EXPIRED).
    """
    row = generations.get(tx, tenant, generation)
    if row.state != State.SUCCEEDED:
        done = "it never will have one" if row.state in FINAL else "wait until it is SUCCEEDED"
        text = f"generations/{row.id} has no video: it is {row.state}; {done}."
        raise FailedPrecondition(text, reason=Reason.VIDEO_NOT_READY, metadata={"state": row.state})
    if is_expired(tx, row):
        at = timestamp(row.video_expire_time).ToJsonString()
        text = f"The video of generations/{row.id} was kept until {at}: make it anew, by the same parameters."
        raise NotFound(text, reason=Reason.VIDEO_EXPIRED, metadata={"expire_time": at})
    return row


def is_expired(tx: Transaction, row: GenerationRow) -> bool:
    """Whether the time of a video is over."""
    return row.video_expire_time is not None and row.video_expire_time <= tx.now
