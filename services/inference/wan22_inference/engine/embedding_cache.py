"""Embeddings of texts that were encoded before, by one model version."""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor

Tokens = tuple[int, ...]


class EmbeddingCache:
    """Keeps the embeddings used last, up to a number of bytes of host memory; 0 keeps none."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._kept: OrderedDict[Tokens, Tensor] = OrderedDict()
        self.bytes = 0
        """Kept now."""

    def get(self, tokens: Tokens) -> Tensor | None:
        """The embeddings (tokens, dim) on the CPU, if they are kept."""
        found = self._kept.get(tokens)
        if found is not None:
            self._kept.move_to_end(tokens)
        return found

    def put(self, tokens: Tokens, embeddings: Tensor) -> None:
        """Keeps embeddings (tokens, dim) on the CPU; those not used for longest give way."""
        self._kept[tokens] = embeddings
        self.bytes += embeddings.nbytes
        while self.bytes > self._max_bytes:
            _, oldest = self._kept.popitem(last=False)
            self.bytes -= oldest.nbytes
