"""What may enter: paths that stay inside a folder, JSON that parses, weights whose headers tell the truth."""

from __future__ import annotations

import json
from pathlib import Path

from wan22.errors import InvalidRequest, Reason
from wan22.pack.layout import PACKED_SUFFIX
from wan22.pack.malformed import MalformedFile
from wan22.pack.reader import PackedFile
from wan22.pack.safetensors_header import read_header

MAX_JSON_BYTES = 64 << 20
MAX_QUOTED = 400
"""Characters of an error's text that come from a file."""


def check_path(path: str) -> None:
    """Raises InvalidRequest (FORBIDDEN_FILE) unless the path is relative, plain, and of a kind that may enter."""
    parts = path.split("/")
    plain = all(part not in {"", ".", ".."} and part.isprintable() and "\\" not in part for part in parts)
    if not plain or len(path) > 255:
        raise _forbidden(path, "use a relative path of plain parts, such as transformer/config.json")
    if not path.endswith((".safetensors", PACKED_SUFFIX, ".json")):
        raise _forbidden(path, f"only .safetensors, {PACKED_SUFFIX} and .json enter a registry")


def check_content(path: str, blob: Path) -> None:
    """Raises InvalidRequest (FORBIDDEN_FILE) when a blob is not what its file's name says; reads no weights."""
    if path.endswith(".json"):
        _check_json(path, blob)
        return
    try:
        (_check_pack if path.endswith(PACKED_SUFFIX) else _check_safetensors)(blob)
    except MalformedFile as error:
        raise _forbidden(path, str(error)) from None


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


def _check_safetensors(blob: Path) -> None:
    with blob.open("rb") as file:
        read_header(file, blob.stat().st_size)


def _check_pack(blob: Path) -> None:
    with PackedFile(blob) as pack:
        pack.safetensors_header()
