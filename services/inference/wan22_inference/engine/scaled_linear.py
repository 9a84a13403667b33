"""Linear layers of the text encoder whose matrices are stored in float8, and computed in the dtype of their input."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812  # torch's own convention
from torch import Tensor, nn

from wan22_inference.engine.rows8 import FP8, Rows8


class ScaledLinear(nn.Module):
    """X times the transpose of a matrix quantised by rows, which is widened for each product; no bias.

    The encoder runs once a text, so that memory counts here and speed does not.
    """

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.empty(out_features, in_features, dtype=FP8), requires_grad=False)
        self.matrix_scale = nn.Parameter(torch.empty(out_features, dtype=torch.float32), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) to (..., out)."""
        return F.linear(x, Rows8(self.matrix, self.matrix_scale).float().to(x.dtype))


def scale_linear_layers(module: nn.Module) -> None:
    """Replaces each linear layer in a module by one whose matrix is yet to be filled."""
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Linear):
                setattr(parent, name, ScaledLinear(child.in_features, child.out_features))
