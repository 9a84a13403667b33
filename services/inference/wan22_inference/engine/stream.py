"""The residual stream of a DiT."""

from __future__ import annotations

from torch import Tensor

from wan22_inference.engine.operations import operations
from wan22_inference.engine.rows8 import Operand


class Stream:
    """Tokens (B, L, dim) to which branches are added, and whose norm is what each branch sees.

    A branch is added in the same pass over memory as the norm that follows it; until then it waits.
    """

    def __init__(self, x: Tensor, lengths: tuple[int, ...]) -> None:
        """`x` is overwritten; `lengths` are the R runs of tokens that share a row of modulation."""
        self._x = x
        self._lengths = lengths
        self._operations = operations(x.device)
        self._waiting: tuple[Tensor, Tensor | None] | None = None

    def add(self, branch: Tensor, gate: Tensor | None = None) -> None:
        """Adds branch * gate: the branch is like the stream, the gate (R, dim) float32. A norm comes between two.

        The branch is only read.
        """
        if self._waiting is not None:
            raise RuntimeError("a branch was added before the norm that follows the one before it")
        self._waiting = branch, gate

    def norm(self, scale: Tensor, shift: Tensor, eps: float, *, fp8: bool) -> Operand:
        """LayerNorm of the stream, times scale (R, dim) float32, plus shift (R, dim); quantised where `fp8`."""
        if self._waiting is None:
            return self._operations.norm(self._x, scale, shift, self._lengths, eps, fp8=fp8)
        (branch, gate), self._waiting = self._waiting, None
        return self._operations.add_norm(self._x, branch, gate, scale, shift, self._lengths, eps, fp8=fp8)
