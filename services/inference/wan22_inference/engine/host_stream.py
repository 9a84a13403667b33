"""Copies of tensors to the host beside the computation, which never waits for them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


class HostStream:
    """On a CUDA device a stream of its own that copies into pinned memory; on a CPU nothing is copied."""

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]  # torch's

    def copy(self, tensors: Mapping[str, Tensor]) -> tuple[Mapping[str, Tensor], torch.cuda.Event | None]:
        """Starts to copy tensors that nobody will change; they are whole once the event, if there is one, is over."""
        if self._stream is None:
            return tensors, None
        self._stream.wait_stream(torch.cuda.current_stream(self._stream.device))
        copies = {}
        with torch.cuda.stream(self._stream):
            for name, tensor in tensors.items():
                if tensor.is_cuda:
                    copy = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
                    copies[name] = copy.copy_(tensor, non_blocking=True)
                    tensor.record_stream(self._stream)
                else:
                    copies[name] = tensor
            return copies, self._stream.record_event(torch.cuda.Event(blocking=True))  # type: ignore[no-untyped-call]  # torch's
