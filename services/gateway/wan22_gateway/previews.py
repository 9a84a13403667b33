"""Which previews of a worker are passed on: small WebP images that were asked for, whatever the worker may send."""

from __future__ import annotations

from wan22.previews import MAX_BYTES, MAX_INTERVAL, MAX_SIDE, webp_size
from wan22.v1.generation_pb2 import Preview


def flaw(preview: Preview, interval: int | None) -> str:
    """Why a preview is refused, in words; empty for one that is good. The image is not decoded here."""
    if not interval:
        return "nobody asked for it"
    if not 0 < preview.step < preview.num_steps <= MAX_INTERVAL:
        return f"it is of step {preview.step} of {preview.num_steps}"
    if len(preview.image) > MAX_BYTES:
        return f"it has {len(preview.image)} bytes, more than {MAX_BYTES}"
    size = webp_size(preview.image)
    if size is None:
        return "it is no WebP image"
    if size != (preview.width, preview.height) or not 0 < min(size) <= max(size) <= MAX_SIDE:
        return f"it is {size[0]} x {size[1]} and said to be {preview.width} x {preview.height}; {MAX_SIDE} are allowed"
    return ""


def known(preview: Preview) -> Preview:
    """The preview without fields that this version does not know: what was not looked at is not stored."""
    kept = Preview()
    kept.CopyFrom(preview)
    kept.DiscardUnknownFields()
    return kept
