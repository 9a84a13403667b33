"""What comes with a Generate call beside its parameters: image conditions, a checkpoint, and what is wished for."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Mapping
from dataclasses import dataclass

from wan22.digests import Sha256
from wan22.economy import EMPTY, Economy
from wan22.errors import DataLoss, InvalidRequest, Reason
from wan22.parameters import Parameters
from wan22.previews import MAX_INTERVAL

MAX_IMAGE_BYTES = 32 << 20
"""As at upload."""
MAX_CHECKPOINT_BYTES = 1 << 30
"""Ten times what the largest video takes."""


@dataclass(frozen=True)
class Resume:
    """The checkpoint that a call announces."""

    step: int
    size_bytes: int
    digest: str
    """Format: sha256:{64 hex digits}."""
    numerics_digest: str


@dataclass(frozen=True)
class SentCheckpoint:
    """A checkpoint's file, whole, and the steps done in it."""

    step: int
    data: bytes


class Inputs:
    """Collects the images that the parameters name, and the announced checkpoint, chunk by chunk."""

    def __init__(
        self,
        parameters: Parameters,
        resume: Resume | None = None,
        economy: Economy = EMPTY,
        preview_interval: int = 0,
    ) -> None:
        if resume is not None and not 0 < resume.size_bytes <= MAX_CHECKPOINT_BYTES:
            text = f"start.resume.size_bytes is {resume.size_bytes}: use 1 to {MAX_CHECKPOINT_BYTES}."
            raise InvalidRequest(text, field="start.resume.size_bytes")
        if resume is not None and not 0 < resume.step < parameters.num_inference_steps:
            text = f"start.resume.step is {resume.step}: use 1 to {parameters.num_inference_steps - 1}."
            raise InvalidRequest(text, field="start.resume.step")
        if not 0 <= preview_interval <= MAX_INTERVAL:
            text = f"start.preview_interval is {preview_interval}: use 1 to {MAX_INTERVAL} steps, or 0 for no previews."
            raise InvalidRequest(text, field="start.preview_interval")
        self.resume = resume
        self.economy = economy
        self.preview_interval = preview_interval
        """Steps from one preview to the next; 0 is none."""
        self._checkpoint = bytearray()
        self._fields = {
            media: field
            for field, media in (("last_image", parameters.last_image), ("image", parameters.image))
            if media is not None
        }
        self._images = {media: bytearray() for media in self._fields}

    def add(self, media: str, data: bytes) -> None:
        """Appends a chunk. Raises InvalidRequest for a medium that no parameter names, or one that is too large."""
        if media not in self._images:
            raise InvalidRequest(
                f"input_chunk.media is {media!r}: use what image or last_image says.", field="input_chunk.media"
            )
        self._images[media] += data
        if len(self._images[media]) > MAX_IMAGE_BYTES:
            raise InvalidRequest(f"{media} has more than {MAX_IMAGE_BYTES} bytes.", field="input_chunk.data")

    def add_checkpoint(self, offset: int, data: bytes, crc32: int) -> None:
        """Appends a chunk. Raises InvalidRequest for one that was not announced, DataLoss when it is damaged."""
        if self.resume is None or len(self._checkpoint) + len(data) > self.resume.size_bytes:
            text = "checkpoint_chunk is more than start.resume announces: announce what is sent."
            raise InvalidRequest(text, field="checkpoint_chunk")
        if offset != len(self._checkpoint) or zlib.crc32(data) != crc32:
            text = f"The checkpoint chunk at {offset} is damaged or not the next one, which is at "
            raise DataLoss(f"{text}{len(self._checkpoint)}.", reason=Reason.DAMAGED_CHECKPOINT)
        self._checkpoint += data

    def checkpoint(self) -> SentCheckpoint | None:
        """What to go on from, if anything. Raises DataLoss (DAMAGED_CHECKPOINT) when it is not what was announced."""
        if self.resume is None:
            return None
        data = bytes(self._checkpoint)
        digest = str(Sha256(data))
        if (len(data), digest) != (self.resume.size_bytes, self.resume.digest):
            text = f"The checkpoint of step {self.resume.step} has {len(data)} bytes and {digest}, not "
            text += f"{self.resume.size_bytes} and {self.resume.digest}."
            raise DataLoss(text, reason=Reason.DAMAGED_CHECKPOINT)
        return SentCheckpoint(self.resume.step, data)

    def images(self) -> Mapping[str, bytes]:
        """The images by media name. Raises InvalidRequest when one is missing, DataLoss when its digest differs."""
        for media, data in self._images.items():
            if not data:
                field = self._fields[media]
                raise InvalidRequest(f"{field} is {media}, but no input_chunk of it came.", field=f"parameters.{field}")
            digest = hashlib.sha256(data).hexdigest()
            if media != f"media/{digest}":
                raise DataLoss(f"The bytes of {media} have the digest {digest}.", reason=Reason.DIGEST_MISMATCH)
        return {media: bytes(data) for media, data in self._images.items()}
