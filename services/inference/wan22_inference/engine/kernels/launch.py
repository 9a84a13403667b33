"""Launch shapes of the kernels that take a whole row at a time: fixed by the row's length, never tuned at run time."""

from __future__ import annotations

from dataclasses import dataclass

import triton


@dataclass(frozen=True)
class RowShape:
    """How a program holds a row: in two parts, since lengths such as 5,120 are far from a power of two."""

    main: int
    """Channels of the first part, a power of two."""
    rest: int
    """Channels of the second part, a power of two; the row may end within it."""
    warps: int


def row_shape(dim: int) -> RowShape:
    """The shape for rows of `dim` channels, at least 2."""
    main = int(triton.next_power_of_2(dim)) // 2
    rest = int(triton.next_power_of_2(dim - main))
    return RowShape(main, rest, 4 if main >= 2048 else 1)
