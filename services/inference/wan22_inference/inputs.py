"""The image conditions that come with a Generate call."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from wan22.errors import DataLoss, InvalidRequest, Reason
from wan22.parameters import Parameters

MAX_IMAGE_BYTES = 32 << 20
"""As at upload."""


class Inputs:
    """Collects the images that the parameters name, chunk by chunk."""

    def __init__(self, parameters: Parameters) -> None:
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

    def complete(self) -> Mapping[str, bytes]:
        """The images by media name. Raises InvalidRequest when one is missing, DataLoss when its digest differs."""
        for media, data in self._images.items():
            if not data:
                field = self._fields[media]
                raise InvalidRequest(f"{field} is {media}, but no input_chunk of it came.", field=f"parameters.{field}")
            digest = hashlib.sha256(data).hexdigest()
            if media != f"media/{digest}":
                raise DataLoss(f"The bytes of {media} have the digest {digest}.", reason=Reason.DIGEST_MISMATCH)
        return {media: bytes(data) for media, data in self._images.items()}
