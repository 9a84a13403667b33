"""Reads safetensors files tensor by tensor into memory of their own, without mapping the file.

A mapped file would be read page by page whenever the kernel likes, from a volume that may be slow or go away.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wan22.errors import DataLoss, Reason

_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "U8": torch.uint8,
}
MAX_HEADER_BYTES = 100_000_000
"""As in the reference reader."""


def read_tensors(path: Path, name: str) -> Iterator[tuple[str, Tensor]]:
    """Yields each tensor's name and value, in file order. `name` is the file's for errors.

    Raises DataLoss for a file that is no safetensors file. Format: huggingface.co/docs/safetensors.
    """
    with path.open("rb", buffering=0) as file:
        length = int.from_bytes(file.read(8), "little")
        if length > MAX_HEADER_BYTES:
            raise _broken(name, f"its header claims {length} bytes")
        header = _parse(file.read(length), name)
        entries = sorted(header.items(), key=lambda item: int(item[1]["data_offsets"][0]))
        for tensor_name, entry in entries:
            begin, end = entry["data_offsets"]
            dtype = _DTYPES.get(entry["dtype"])
            if dtype is None:
                raise _broken(name, f"{tensor_name} has the unknown dtype {entry['dtype']!r}")
            if end - begin != math.prod(entry["shape"]) * dtype.itemsize:
                raise _broken(name, f"{tensor_name} has {end - begin} bytes, which is not what its shape needs")
            data = torch.empty(end - begin, dtype=torch.uint8)
            file.seek(8 + length + begin)
            buffer, done = data.numpy().data, 0
            while done < len(buffer):
                count = file.readinto(buffer[done:])
                if not count:
                    raise _broken(name, f"it ends inside {tensor_name}")
                done += count
            yield tensor_name, data.view(dtype).reshape(entry["shape"])


def _parse(header: bytes, name: str) -> dict[str, dict[str, Any]]:
    try:
        entries = json.loads(header)
        entries.pop("__metadata__", None)
        for entry in entries.values():
            begin, end = entry["data_offsets"]
            if not (entry["dtype"] and 0 <= begin <= end and all(side >= 0 for side in entry["shape"])):
                raise ValueError(entry)  # noqa: TRY301  # one place turns all of these into one error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _broken(name, "its header is not a safetensors header") from error
    return entries  # type: ignore[no-any-return]  # checked above


def _broken(name: str, what: str) -> DataLoss:
    return DataLoss(f"{name} is damaged: {what}. Push the model again.", reason=Reason.DIGEST_MISMATCH)
