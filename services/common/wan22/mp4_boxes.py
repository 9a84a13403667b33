"""What wan22 writes into an MP4 beside the video: one box with the recipe, one with the mark of its origin.

Both are top-level `uuid` boxes at the end of the file, which players skip. The mark is an XMP packet, where tools look
for it (Adobe's XMP specification, part 3; IPTC's digitalSourceType). Source of the box: ISO/IEC 14496-12, 4.2.
"""

from __future__ import annotations

import hashlib
import os
import struct
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from wan22.errors import InvalidRequest
from wan22.recipe import Recipe

XMP_BOX = uuid.UUID("be7acfcb-97a9-42e8-9c71-999491e3afac")
RECIPE_BOX = uuid.UUID("6a0f3b5c-2d1e-5c8b-9d57-1f6f8b1d7a22")
_DIGITAL_SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
_XMP = f"""<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/">
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <rdf:Description rdf:about="" xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
    xmlns:xmp="http://ns.adobe.com/xap/1.0/">
   <Iptc4xmpExt:DigitalSourceType>{_DIGITAL_SOURCE_TYPE}</Iptc4xmpExt:DigitalSourceType>
   <xmp:CreatorTool>wan22</xmp:CreatorTool>
  </rdf:Description>
 </rdf:RDF>
</x:xmpmeta>
<?xpacket end="r"?>"""
_HEADER, _KIND = 8, 16
"""Bytes of a box's length and name, and of a `uuid` box's kind."""
_MOST_BYTES = 1 << 20
"""Of a recipe; its texts have at most 10,000 characters each."""


def append_boxes(path: Path, recipe: Recipe | None) -> None:
    """Marks a finished MP4 as made by a model, and adds the recipe to it."""
    with path.open("ab") as file:
        file.write(_box(XMP_BOX, _XMP.encode()))
        if recipe is not None:
            file.write(_box(RECIPE_BOX, recipe.to_json().encode()))


def read_recipe(path: Path) -> Recipe:
    """The recipe in an MP4. Raises InvalidRequest when there is none, or the file is no MP4; OSError."""
    data = _find(path, RECIPE_BOX)
    if data is None:
        raise InvalidRequest(f"{path} holds no recipe: it was not made by wan22, or was re-encoded since.")
    return Recipe.from_json(data.decode(errors="replace"))


def read_xmp(path: Path) -> str | None:
    """The XMP packet in an MP4, if there is one. Raises InvalidRequest for a file that is no MP4; OSError."""
    data = _find(path, XMP_BOX)
    return None if data is None else data.decode()


def video_digest(path: Path) -> str:
    """SHA-256, in hex, of an MP4 without its boxes of wan22: equal for equal frames, whatever the recipe says.

    Raises InvalidRequest for a file that is no MP4; OSError.
    """
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for kind, start, size in _boxes(file, path):
            if kind in {XMP_BOX, RECIPE_BOX}:
                continue
            file.seek(start)
            while size > 0 and (piece := file.read(min(size, 1 << 20))):
                digest.update(piece)
                size -= len(piece)  # noqa: PLW2901  # what is left of it
    return digest.hexdigest()


def _box(kind: uuid.UUID, data: bytes) -> bytes:
    return struct.pack(">I4s", _HEADER + _KIND + len(data), b"uuid") + kind.bytes + data


def _find(path: Path, kind: uuid.UUID) -> bytes | None:
    """The content of the first top-level `uuid` box of a kind."""
    with path.open("rb") as file:
        for found, start, size in _boxes(file, path):
            if found == kind:
                length = size - _HEADER - _KIND
                file.seek(start + _HEADER + _KIND)
                data = file.read(length) if 0 <= length <= _MOST_BYTES else b""
                if len(data) != length:
                    raise InvalidRequest(f"{path} is cut short, or its box of {length} bytes is none of wan22's.")
                return data
    return None


def _boxes(file: BinaryIO, path: Path) -> Iterator[tuple[uuid.UUID | None, int, int]]:
    """Each top-level box: its kind if it is a `uuid` box, where it starts, and its length with the header."""
    end = file.seek(0, os.SEEK_END)
    start = 0
    while start < end:
        file.seek(start)
        header = file.read(_HEADER)
        if len(header) < _HEADER or (start == 0 and header[4:] != b"ftyp"):
            raise InvalidRequest(f"{path} is no MP4, or is cut short.")
        size, name = struct.unpack(">I4s", header)
        if size == 1:  # a 64-bit length follows
            size = int.from_bytes(file.read(8), "big")
        elif size == 0:  # to the end of the file
            size = end - start
        if size < _HEADER:
            raise InvalidRequest(f"{path} is no MP4, or is damaged: a box has {size} bytes.")
        kind = file.read(_KIND) if name == b"uuid" else b""
        yield uuid.UUID(bytes=kind) if len(kind) == _KIND else None, start, size
        start += size
