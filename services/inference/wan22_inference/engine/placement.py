"""Where a model's weights are: all on the device, or the experts' blocks in host memory and on the device by turns."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch
from torch import nn

from wan22.memory_model import Holdings
from wan22_inference.engine.options import EngineOptions, TextEncoderPlace
from wan22_inference.engine.transformer import Transformer

log = logging.getLogger(__name__)
ROOM = 4 << 30
"""Bytes that must be left beside all weights for these to stay: what a video of 832x480x81 takes, and a little."""
KERNELS = 192 << 20
"""Bytes kept free under a limit for what libraries take when their kernels are first used; an H200 showed 70 MB."""


def bytes_of(module: nn.Module) -> int:
    """Of a module's weights, each counted once."""
    tensors = {id(tensor): tensor for tensor in (*module.parameters(), *module.buffers())}
    return sum(tensor.nbytes for tensor in tensors.values())


def device_limit(device: torch.device, options: EngineOptions) -> int | None:
    """Bytes of the device that may be used, which the allocator is held to; None on a CPU without a limit."""
    if device.type != "cuda":
        return options.vram_limit
    total = torch.cuda.mem_get_info(device)[1]
    if options.vram_limit is None:
        return total
    limit = min(options.vram_limit, total)
    # pieces too small for the next tensor took 2.5 of 6.4 GB otherwise
    torch._C._accelerator_setAllocatorSettings("expandable_segments:True")  # noqa: SLF001  # no public one once it runs
    torch.cuda.set_per_process_memory_fraction(max(limit - device_overhead(device) - KERNELS, 1) / total, device)
    return limit


def device_overhead(device: torch.device) -> int:
    """What is taken of the device beside tensors of ours: context, libraries, other processes."""
    if device.type != "cuda":
        return 0
    free, total = torch.cuda.mem_get_info(device)
    return max(total - free - torch.cuda.memory_reserved(device), 0)


class Placement:
    """Moves the experts' blocks; all calls from the thread that computes."""

    def __init__(
        self,
        transformers: Sequence[Transformer],
        text_encoder_bytes: int,
        vae_bytes: int,
        device: torch.device,
        options: EngineOptions,
        limit: int | None,
    ) -> None:
        self._transformers = transformers
        self._device = device
        self._limit = limit
        self._kept = KERNELS if device.type == "cuda" and options.vram_limit is not None else 0
        self._text_encoder = text_encoder_bytes
        self._text_encoder_place = options.text_encoder
        self._vae = vae_bytes
        blocks = [bytes_of(block) for block in transformers[0].blocks]
        self._block, self._largest_block = min(blocks), max(blocks)
        self._expert = bytes_of(transformers[0]) - sum(blocks)

    @property
    def streamed(self) -> bool:
        """Whether blocks live in host memory."""
        return self._transformers[0].block_stream is not None

    def holdings(self) -> Holdings | None:
        """For the memory model; None where nothing bounds the memory."""
        if self._limit is None:
            return None
        return Holdings(
            limit=self._limit,
            overhead=device_overhead(self._device) + self._kept,
            text_encoder=0 if self._text_encoder_place is TextEncoderPlace.CPU else self._text_encoder,
            text_encoder_stays=self._text_encoder_place is TextEncoderPlace.DEVICE,
            expert=self._expert,
            block=self._block,
            largest_block=self._largest_block,
            streamed=self.streamed,
            vae=self._vae,
            element=self._transformers[0].dtype.itemsize,
        )

    def stream(self) -> None:
        """Takes all blocks to host memory, for the life of the process: they do not fit beside what is asked for."""
        if not self.streamed:
            log.warning("The experts' blocks move to host memory, and come to the device by turns.")
            for transformer in self._transformers:
                transformer.stream_blocks(self._device)

    def give_turn(self, index: int, resident: int) -> None:
        """Lets an expert have its share of the device, and the others none."""
        for other, transformer in enumerate(self._transformers):
            if other != index and transformer.block_stream is not None:
                transformer.block_stream.release()
        stream = self._transformers[index].block_stream
        if stream is not None:
            stream.set_resident(resident)

    def clear(self) -> None:
        """Takes streamed blocks off the device: something else needs the room."""
        for transformer in self._transformers:
            if transformer.block_stream is not None:
                transformer.block_stream.release()


def must_stream(limit: int | None, weights: int) -> bool:
    """Whether so many bytes of weights leave too little room beside them."""
    return limit is not None and weights + ROOM > limit
