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
    return InvalidRequest(f"File {path!r} is refused: {why}.", field="files", reason=Reason.FORBIDDEN_FILE)


def _check_json(path: str, blob: Path) -> None:
    size = blob.stat().st_size
    if size > MAX_JSON_BYTES:
        raise _forbidden(path, f"it has {size} bytes of JSON, at most {MAX_JSON_BYTES} are taken")
    try:
        json.loads(blob.read_bytes())
    except (ValueError, RecursionError) as error:
        raise _forbidden(path, f"it is not JSON: {error}") from None


def _check_safetensors(path: str, blob: Path) -> None:
    size = blob.stat().st_size
    with blob.open("rb") as file:
        prefix = file.read(8)
        length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else size
        if length > min(MAX_HEADER_BYTES, size - 8):
            raise _forbidden(path, f"its safetensors header is said to have {length} bytes, the file has {size}")
        raw = file.read(length)
    try:
        header = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise _forbidden(path, f"its safetensors header is not JSON: {error}") from None
    if not isinstance(header, dict):
        raise _forbidden(path, "its safetensors header is no JSON object")
    header.pop("__metadata__", None)
    extents = sorted(_extent(path, name, tensor) for name, tensor in header.items())
    end = 0
    for start, stop, name in extents:
        if start != end:
            raise _forbidden(path, f"tensor {name!r} starts at {start}, but the one before it ends at {end}")
        end = stop
    if end != size - 8 - length:
        raise _forbidden(path, f"its tensors end at {end}, but it has {size - 8 - length} bytes of them")


def _extent(path: str, name: str, tensor: Any) -> tuple[int, int, str]:
    """Where a tensor lies, after its dtype and shape have been held against its length."""
    try:
        dtype, shape, (start, stop) = tensor["dtype"], tensor["shape"], tensor["data_offsets"]
        well_formed = isinstance(shape, list) and all(type(n) is int and n >= 0 for n in (*shape, start, stop - start))
        expected = math.prod(shape) * ITEM_BYTES[dtype] if well_formed else 0
    except (KeyError, TypeError, ValueError) as error:
        raise _forbidden(path, f"the header's entry of tensor {name!r} is wrong ({error!r})") from None
    if not well_formed:
        raise _forbidden(path, f"tensor {name!r} has shape {shape} and offsets {start} to {stop}")
    if stop - start != expected:
        raise _forbidden(path, f"tensor {name!r} has {stop - start} bytes, but {dtype} {shape} needs {expected}")
    return start, stop, name
