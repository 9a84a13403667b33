"""The solvers that integrate the denoising: which there are, by their names in generation.proto."""

from __future__ import annotations

from enum import StrEnum


class Solver(StrEnum):
    """How latents follow the predicted velocity from one sigma to the next."""

    UNIPC = "UNIPC"
    """UniPC of order 2 (bh2), the official default."""
    DPMPP = "DPMPP"
    """DPM-Solver++ of order 2, midpoint; the official alternative."""
    EULER = "EULER"
    """Order 1, along the velocity."""
    LCM = "LCM"
    """Order 1 with new noise at each step; for distilled weights."""
