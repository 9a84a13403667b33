"""What the two forwards of a guided step begin with, computed once."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor


class SharedStart:
    """The first block's self-attention, which a step's first forward makes and its second takes; one object a step.

    Both forwards are of the same latents and timesteps, and what is after it is the first to look at the text: so it
    is the same in both, bit for bit.
    """

    def __init__(self) -> None:
        self._branch: Tensor | None = None

    def take_or_make(self, make: Callable[[], Tensor]) -> Tensor:
        """The branch (B, L, dim), only to be read: made and kept by the first call, taken and let go by the second."""
        if self._branch is None:
            self._branch = make()
            return self._branch
        taken, self._branch = self._branch, None
        return taken
