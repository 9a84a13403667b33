"""What a DiT computes in, as measurements compare it."""

from __future__ import annotations

from enum import Enum


class Mode(Enum):
    """Each with the options of our DiT."""

    BF16 = "bf16"
    FP8 = "fp8 linear layers, bf16 attention"
    ALL_FP8 = "fp8 linear layers and self-attention"

    @property
    def fp8(self) -> bool:
        """Whether linear layers are quantised."""
        return self is not Mode.BF16

    @property
    def attention8(self) -> bool:
        """Whether self-attention is."""
        return self is Mode.ALL_FP8
