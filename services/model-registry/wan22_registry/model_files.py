"""What may enter: paths that stay inside a folder, JSON that parses, safetensors whose header tells the truth."""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path
from typing import Any

from wan22.errors import InvalidRequest, Reason

MAX_JSON_BYTES = 64 << 20
MAX_HEADER_BYTES = 100 << 20
"""safetensors' own limit of a header."""
MAX_QUOTED = 400
"""Characters of an error's text that come from a file."""
MAX_DIMENSIONS = 64
"""torch's limit."""
ITEM_BYTES = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1,
    "U16": 2, "I16": 2, "F16": 2, "BF16": 2,
    "U32": 4, "I32": 4, "F32": 4,
    "U64": 8, "I64": 8, "F64": 8,
}  # fmt: skip


def check_path(path: str) -> None:
    """Raises InvalidRequest (FORBIDDEN_FILE) unless the path is relative, plain, and of a kind that may enter."""
    parts = path.split("/")
    plain = all(part not in {"", ".", ".."} and part.isprintable() and "\\" not in part for part in parts)
    if not plain or len(path) > 255:
        raise _forbidden(path, "use a relative path of plain parts, such as transformer/config.json")
    if not path.endswith((".safetensors", ".json")):
        raise _forbidden(path, "only .safetensors and .json enter a registry")


def check_content(path: str, blob: Path) -> None:
    """Raises InvalidRequest (FORBIDDEN_FILE) when a blob is not what its file's name says; reads no weights."""
    if path.endswith(".json"):
        _check_json(path, blob)
    else:
        _check_safetensors(path, blob)


def _forbidden(path: str, why: str) -> InvalidRequest:
    text = f"File {_short(repr(path))} is refused: {_short(why)}."
    return InvalidRequest(text, field="files", reason=Reason.FORBIDDEN_FILE)


def _short(text: str) -> str:
    """Enough to see what is meant: an error travels in a header of 8 KiB, and names come from the file."""
    return text if len(text) <= MAX_QUOTED else text[:MAX_QUOTED] + "…"


def _check_json(path: str, blob: Path) -> None:
    size = blob.stat().st_size
    if size > MAX_JSON_BYTES:
        raise _forbidden(path, f"it has {size} bytes of JSON, at most {MAX_JSON_BYTES} are taken")
    try:
        json.loads(blob.read_bytes().decode())
    except (ValueError, RecursionError) as error:
        raise _forbidden(path, f"it is not JSON: {error}") from None


def _check_safetensors(path: str, blob: Path) -> None:
    size = blob.stat().st_size
    if size < 8:
        raise _forbidden(path, f"it has {size} bytes, and a safetensors header begins with 8")
    with blob.open("rb") as file:
        length = struct.unpack("<Q", file.read(8))[0]
        if length > min(MAX_HEADER_BYTES, size - 8):
            raise _forbidden(path, f"its safetensors header is said to have {length} bytes, the file has {size}")
        header = _read_header(path, file.read(length))
    end = 0
    for start, stop, name in sorted(_extent(path, name, tensor) for name, tensor in header.items()):
        if start != end:
            raise _forbidden(path, f"tensor {name!r} starts at {start}, but the one before it ends at {end}")
        end = stop
    if end != size - 8 - length:
        raise _forbidden(path, f"its tensors end at {end}, but it has {size - 8 - length} bytes of them")


def _read_header(path: str, raw: bytes) -> dict[str, Any]:
    """The tensors' entries by name; also their names and the metadata have been checked."""
    if not raw.startswith(b"{"):
        raise _forbidden(path, "its safetensors header does not begin with {, so it is no JSON object")
    try:
        header = json.loads(raw.decode(), object_pairs_hook=_without_repeats)
    except (ValueError, RecursionError) as error:
        raise _forbidden(path, f"its safetensors header is not JSON: {error}") from None
    metadata = header.pop("__metadata__", {})
    if not (isinstance(metadata, dict) and all(isinstance(value, str) for value in metadata.values())):
        raise _forbidden(path, "its header's __metadata__ has other values than texts")
    tensors: dict[str, Any] = header
    return tensors


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose names differ: readers disagree about which of two equal names counts."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("it has a name twice")
    return found


def _extent(path: str, name: str, tensor: Any) -> tuple[int, int, str]:
    """Where a tensor lies, after its dtype and shape have been held against its length."""
    try:
        dtype, shape, (start, stop) = tensor["dtype"], tensor["shape"], tensor["data_offsets"]
        item_bytes = ITEM_BYTES[dtype]
        well_formed = (
            isinstance(shape, list)
            and len(shape) <= MAX_DIMENSIONS
            and all(type(n) is int and 0 <= n < 1 << 63 for n in (*shape, start, stop, stop - start))
        )
    except (KeyError, TypeError, ValueError) as error:
        raise _forbidden(path, f"the header's entry of tensor {name!r} is wrong ({error!r})") from None
    if not well_formed:
        raise _forbidden(path, f"tensor {name!r} has shape {shape} and offsets {start} to {stop}")
    expected = math.prod(shape) * item_bytes
    if stop - start != expected:
        raise _forbidden(path, f"tensor {name!r} has {stop - start} bytes, but {dtype} {shape} needs {expected}")
    return start, stop, name
