"""The linear layers of the DiT's blocks, in the compute dtype and in 8-bit floating point."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812  # torch's own convention
from torch import Tensor, nn

from wan22_inference.engine.adaptable import Branch
from wan22_inference.engine.operations import operations
from wan22_inference.engine.rows8 import FP8, Operand, Rows8


class Linear(nn.Module):
    """X times the weight's transpose, plus the bias; all of one dtype."""

    fp8 = False

    def __init__(self, in_features: int, out_features: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_features, in_features, dtype=dtype))
        self.bias = nn.Parameter(torch.empty(out_features, dtype=dtype))
        self.branch: Branch | None = None
        """What adapters add."""

    def forward(self, x: Operand) -> Tensor:
        """(..., in) to (..., out)."""
        out = F.linear(_plain(x), self.weight, self.bias)
        return out if self.branch is None else self.branch.add_to(out, x)

    def gelu(self, x: Operand) -> Operand:
        """GELU, in its tanh form, of the result."""
        if self.branch is not None:
            return torch.ops.aten.gelu_(self(x), approximate="tanh")  # type: ignore[no-any-return]  # in place
        return operations(self.bias.device).linear_gelu(_plain(x), self.weight, self.bias)


class Fp8Linear(nn.Module):
    """The same with a weight quantised by rows; its input is quantised by rows too. The result is of `dtype`."""

    fp8 = True

    def __init__(self, in_features: int, out_features: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_features, in_features, dtype=FP8), requires_grad=False)
        self.weight_scale = nn.Parameter(torch.empty(out_features, dtype=torch.float32), requires_grad=False)
        self.bias = nn.Parameter(torch.empty(out_features, dtype=dtype))
        self.branch: Branch | None = None
        """What adapters add."""

    def forward(self, x: Operand) -> Tensor:
        """(..., in), which is quantised here unless it is already, to (..., out)."""
        device = self.bias.device
        rows = x if isinstance(x, Rows8) else operations(device).quantise(x)
        out = operations(device).matmul_rows(rows, Rows8(self.weight, self.weight_scale), self.bias)
        return out if self.branch is None else self.branch.add_to(out, x)

    def gelu(self, x: Operand) -> Operand:
        """GELU, in its tanh form, of the result; quantised for the next layer."""
        return operations(self.bias.device).gelu_rows(self(x))


LinearLayer = Linear | Fp8Linear


def _plain(x: Operand) -> Tensor:
    if isinstance(x, Rows8):
        raise TypeError("quantised rows were given to a layer that is not quantised")
    return x
