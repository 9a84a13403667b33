"""Squares of pixels as channels and back, in WAN2.2's order: colour, column, row."""

from __future__ import annotations

from torch import Tensor


def to_patches(frames: Tensor, side: int) -> Tensor:
    """(B, C, T, H, W) to (B, C x side x side, T, H / side, W / side)."""
    batch, channels, count, height, width = frames.shape
    parts = frames.reshape(batch, channels, count, height // side, side, width // side, side)
    return parts.permute(0, 1, 6, 4, 2, 3, 5).flatten(1, 3)


def from_patches(patches: Tensor, side: int) -> Tensor:
    """(B, C x side x side, T, H, W) to (B, C, T, H x side, W x side)."""
    batch, channels, count, height, width = patches.shape
    parts = patches.reshape(batch, channels // side**2, side, side, count, height, width)
    return parts.permute(0, 1, 4, 5, 3, 6, 2).flatten(5, 6).flatten(3, 4)
