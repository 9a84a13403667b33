"""Watches what the forwards of a step may share: the first block's self-attention."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor

from wan22_inference.engine.transformer import Transformer


class Starts:
    """Counts runs of the first blocks' self-attention, and how many of their results live when such a block ends."""

    def __init__(self, transformers: Sequence[Transformer]) -> None:
        self.runs = 0
        self.alive: list[int] = []
        """One number a forward that runs its blocks."""
        self._results: list[weakref.ref[Tensor]] = []
        blocks = [transformer.blocks[0] for transformer in transformers]
        self._hooks = [block.self_attention.register_forward_hook(self._ran) for block in blocks]
        self._hooks += [block.register_forward_hook(self._ended) for block in blocks]

    def _ran(self, _module: object, _inputs: object, result: Tensor) -> None:
        self.runs += 1
        self._results.append(weakref.ref(result))

    def _ended(self, *_: object) -> None:
        self.alive.append(self.now_alive)

    @property
    def now_alive(self) -> int:
        """How many of the results have not been freed."""
        return sum(result() is not None for result in self._results)

    def remove(self) -> None:
        """Counts no more."""
        for hook in self._hooks:
            hook.remove()


@contextmanager
def starts(transformers: Sequence[Transformer]) -> Iterator[Starts]:
    """Watches the first blocks of these."""
    watched = Starts(transformers)
    try:
        yield watched
    finally:
        watched.remove()
