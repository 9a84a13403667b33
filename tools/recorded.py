"""Steps of a training as CUDA graphs.

Tiny models keep a GPU waiting for the host, which has to name thousands of kernels a step. So each kind of step is
recorded once, on tensors that stay where they are, and then only played.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Batch = tuple[Tensor, ...]


def recorded(learn: Callable[[Batch], Tensor], draw: Callable[[], Batch]) -> Callable[[], Tensor]:
    """What learns from a batch, made to play its kernels on one that is drawn; the result's tensor is always the same.

    Batches are of the first one's shapes.
    """
    batch = draw()
    aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(3):
            learn(batch)
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):  # NCCL looks at its events from another thread
        value = learn(batch)

    def play() -> Tensor:
        for place, new in zip(batch, draw(), strict=True):
            place.copy_(new)
        graph.replay()
        return value

    return play
