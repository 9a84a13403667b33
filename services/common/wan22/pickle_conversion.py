"""Turns a checkpoint that torch pickled into safetensors: `python -m wan22.pickle_conversion FILE.pth OUT.safetensors`.

A process of its own, of limited memory and without a network where the kernel allows that: a pickle is a program, and
though torch runs none of it but what makes tensors (`weights_only=True`), its reader is not to be trusted with more.
Writes `done total` in bytes, a line a time, to standard output; what is wrong, one sentence, to standard error.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import pickle
import sys
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wan22.confinement import confine

SPARE_BYTES = 8 << 30
"""Of address space beside the file's: what the library maps for itself, and a step of the work."""
STEP_BYTES = 16 << 20
"""Written at a time."""
_libc = ctypes.CDLL(None)
MADV_PAGEOUT = 21
WRAPPERS = ("state_dict", "model", "module")
"""Names under which some checkpoints hold their tensors."""
DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


class NoCheckpoint(ValueError):
    """The file is not what can be converted; the text follows the file's name."""


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a pickled checkpoint, mapped rather than read where its format allows. Raises NoCheckpoint."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        text = str(error).partition("Please file an issue")[0].splitlines()
        raise NoCheckpoint(f"holds more than tensors, and is not run: {' '.join(text)[:600]}") from None
    except (RuntimeError, EOFError, KeyError, ValueError, TypeError, AttributeError, IndexError) as error:
        raise NoCheckpoint(f"is no checkpoint that torch wrote: {str(error)[:300]}") from None
    if isinstance(content, Mapping) and len(content) == 1 and (name := next(iter(content))) in WRAPPERS:
        content = content[name]
    if not isinstance(content, Mapping) or not content:
        raise NoCheckpoint(f"holds a {type(content).__name__}, where names with their tensors are wanted")
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise NoCheckpoint(f"holds a {type(value).__name__} under {name!r}, where only tensors are wanted")
        if value.layout is not torch.strided or value.dtype not in DTYPES or value.device.type != "cpu":
            kind = f"{value.layout} of {value.dtype}"
            raise NoCheckpoint(f"holds {name!r} as {kind}, which safetensors cannot hold")
    return dict(content)


def write_safetensors(tensors: Mapping[str, Tensor], path: Path, on_bytes: Callable[[int, int], object]) -> None:
    """Writes the file durably, a step at a time; tensors that share memory are written each for itself."""
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    total = 0
    for name, tensor in tensors.items():
        size = tensor.numel() * tensor.element_size()
        offsets = [total, total + size]
        entries[name] = {"dtype": DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": offsets}
        total += size
    header = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    header += b" " * (-len(header) % 8)
    done = 0
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        for tensor in tensors.values():
            data = tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy()
            for start in range(0, len(data), STEP_BYTES):
                piece = data[start : start + STEP_BYTES]
                done += file.write(piece.data)
                _page_out(piece)
                on_bytes(done, total)
        file.flush()
        os.fsync(file.fileno())


def _page_out(piece: NDArray[np.uint8]) -> None:
    """Takes pages of a mapped file out of this process's memory; they would come back if they were read again.

    A kernel that does not do it keeps them as long as it has room.
    """
    begin = piece.ctypes.data // mmap.PAGESIZE * mmap.PAGESIZE
    length = piece.ctypes.data + piece.nbytes - begin
    _libc.madvise(ctypes.c_void_p(begin), ctypes.c_size_t(length), MADV_PAGEOUT)


def convert(source: Path, target: Path, on_bytes: Callable[[int, int], object]) -> None:
    """Writes `target`, which is there whole or not at all. Raises NoCheckpoint, OSError."""
    half = target.with_name(target.name + ".part")
    try:
        write_safetensors(read_tensors(source), half, on_bytes)
        half.rename(target)
    finally:
        half.unlink(missing_ok=True)


def main() -> int:
    """The command line. Returns the exit code."""
    source, target = Path(sys.argv[1]), Path(sys.argv[2])
    try:
        torch.set_num_threads(1)
        confine(2 * source.stat().st_size + SPARE_BYTES)  # an old format is read, not mapped, and may be copied once
        convert(source, target, lambda done, total: sys.stdout.write(f"{done} {total}\n"))
    except NoCheckpoint as error:
        sys.stderr.write(f"{source} {error}.")
        return 1
    except MemoryError:
        sys.stderr.write(f"{source} asks for more memory than a file of its size can need: it is no checkpoint.")
        return 1
    except OSError as error:
        sys.stderr.write(f"{error.filename or target}: {error.strerror}.")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
