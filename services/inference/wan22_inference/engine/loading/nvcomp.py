"""nvCOMP's zstd decoder: many frames at once on a CUDA device. Optional.

Its C interface, not its Python one: that one makes several Python objects a frame, and a model has 100,000 frames.
Source: nvcomp/zstd.h of nvCOMP 6.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.metadata
import logging
from collections.abc import Callable

import torch
from torch import Tensor

from wan22.pack.planes import FRAME_BYTES
from wan22_inference.engine.loading.frames import FrameDecoder, Frames

MakeDecoder = Callable[[], FrameDecoder]
log = logging.getLogger(__name__)
_PACKAGE = "nvidia-libnvcomp-cu13"
_LIBRARY = "libnvcomp.so.6"
_ON_MULTIPROCESSORS = 2
"""NVCOMP_DECOMPRESS_BACKEND_CUDA."""


class _Options(ctypes.Structure):
    _fields_ = [("backend", ctypes.c_int), ("reserved", ctypes.c_char * 60)]  # ctypes' way


class NvcompDecoder:
    """Decodes frames on the current stream of a CUDA device, always the same one."""

    def __init__(self, library: ctypes.CDLL, device: torch.device) -> None:
        self._library = library
        self._device = device
        self._scratch = torch.empty(0, dtype=torch.uint8, device=device)
        self._reserved = 0

    def reserve(self, count: int) -> int:
        """See FrameDecoder; nvCOMP 6.0 asks for 400,152 bytes a frame."""
        needed = ctypes.c_size_t()
        state = self._library.nvcompBatchedZstdDecompressGetTempSize(
            ctypes.c_size_t(count),
            ctypes.c_size_t(FRAME_BYTES),
            _Options(_ON_MULTIPROCESSORS),
            ctypes.byref(needed),
            ctypes.c_size_t(count * FRAME_BYTES),
            ctypes.c_void_p(torch.cuda.current_stream(self._device).cuda_stream),
        )
        _check(state)
        if len(self._scratch) < needed.value:
            self._scratch = torch.empty(needed.value, dtype=torch.uint8, device=self._device)
        self._reserved = max(self._reserved, count)
        return len(self._scratch)

    def decode(self, stored: Tensor, frames: Frames, target: Tensor, table: Tensor) -> Tensor:  # noqa: ARG002
        """See FrameDecoder; all is done when the stream has passed.

        A frame that is not as its packer wrote it may come out
        as anything, and is then not always told.
        """
        count = len(frames)
        sources, sizes, targets, wanted = table
        actual = torch.empty(count, dtype=torch.int64, device=self._device)
        states = torch.empty(count, dtype=torch.int32, device=self._device)
        if count > self._reserved:
            self.reserve(count)
        state = self._library.nvcompBatchedZstdDecompressAsync(
            ctypes.c_void_p(sources.data_ptr()),
            ctypes.c_void_p(sizes.data_ptr()),
            ctypes.c_void_p(wanted.data_ptr()),
            ctypes.c_void_p(actual.data_ptr()),
            ctypes.c_size_t(count),
            ctypes.c_void_p(self._scratch.data_ptr()),
            ctypes.c_size_t(len(self._scratch)),
            ctypes.c_void_p(targets.data_ptr()),
            _Options(_ON_MULTIPROCESSORS),
            ctypes.c_void_p(states.data_ptr()),
            ctypes.c_void_p(torch.cuda.current_stream(self._device).cuda_stream),
        )
        _check(state)
        right: Tensor = (states == 0) & (actual == wanted)
        return right


def find_decoder(device: torch.device) -> MakeDecoder | None:
    """What makes a decoder on the device; None where it has none, and the host decodes."""
    library = find_nvcomp() if device.type == "cuda" else None
    return None if library is None else functools.partial(NvcompDecoder, library, device)


@functools.cache
def find_nvcomp() -> ctypes.CDLL | None:
    """The library, if it is installed; what keeps it away is logged once."""
    try:
        files = importlib.metadata.files(_PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    reasons = []
    for path in [str(file.locate()) for file in files if file.name == _LIBRARY] or [_LIBRARY]:
        try:
            return ctypes.CDLL(path)
        except OSError as error:
            reasons.append(str(error))
    log.warning("Packed weights are decoded on the CPU, since nvCOMP is not here (%s).", "; ".join(reasons))
    return None


def _check(state: int) -> None:
    if state != 0:
        raise RuntimeError(f"nvCOMP refused a call with its error {state}")
