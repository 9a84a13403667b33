"""Muon: an optimizer for the matrices of a network, which CUDA graphs can record."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Muon:
    """Steps of a matrix along its gradient's momentum, with all singular values made one (Jordan et al., 2024).

    Scaled to be as large as AdamW's, as Liu et al. (2025) do, so that the two share a learning rate.
    """

    def __init__(self, matrices: Sequence[nn.Parameter], learning: Tensor) -> None:
        self._learning = learning
        shapes = dict.fromkeys(matrix.shape for matrix in matrices)
        self._alike = [[matrix for matrix in matrices if matrix.shape == shape] for shape in shapes]
        self._momenta = [torch.zeros_like(torch.stack([*alike])) for alike in self._alike]

    @torch.no_grad()
    def step(self) -> None:
        """Once the gradients are there."""
        for alike, momentum in zip(self._alike, self._momenta, strict=True):
            gradient = torch.stack([matrix.grad for matrix in alike if matrix.grad is not None])
            momentum.lerp_(gradient, 0.05)
            step = orthogonal(gradient.lerp(momentum, 0.95)) * (0.2 * max(gradient.shape[1:]) ** 0.5)
            for matrix, one in zip(alike, step.unbind(), strict=True):
                matrix.sub_(self._learning * one)


def orthogonal(x: Tensor) -> Tensor:
    """About the nearest orthogonal matrices, by Newton and Schulz' iteration; x is (count, rows, columns)."""
    turned = x.shape[1] > x.shape[2]
    x = (x.mT if turned else x).bfloat16()
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(5):
        square = x @ x.mT
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    return (x.mT if turned else x).float()
