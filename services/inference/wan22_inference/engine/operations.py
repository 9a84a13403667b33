"""What a block does between its matrix products and its attention, and the choice of what computes it.

Modulation comes as R rows for R runs of tokens on end (`lengths`, whose sum is L), so that nothing is made for each
token. Norms, sums and modulation compute in float32 and round once, to the compute dtype or to quantised rows.
"""

from __future__ import annotations

import functools
import importlib.util
import logging
from typing import Protocol

import torch
from torch import Tensor

from wan22_inference.engine import plain_operations
from wan22_inference.engine.heads8 import Heads8
from wan22_inference.engine.rope import Rotary
from wan22_inference.engine.rows8 import Operand, Rows8
from wan22_inference.engine.text_keys import TextKeys

log = logging.getLogger(__name__)


class Operations(Protocol):
    """One way to compute them: engine/plain_operations.py or engine/fused_operations.py."""

    def norm(
        self, x: Tensor, scale: Tensor, shift: Tensor, lengths: tuple[int, ...], eps: float, *, fp8: bool
    ) -> Operand:
        """LayerNorm(x) * scale + shift of x (B, L, dim), scale and shift (R, dim) float32; quantised where `fp8`."""
        ...

    def add_norm(
        self,
        x: Tensor,
        y: Tensor,
        gate: Tensor | None,
        scale: Tensor,
        shift: Tensor,
        lengths: tuple[int, ...],
        eps: float,
        *,
        fp8: bool,
    ) -> Operand:
        """Writes x + y * gate over x, y like x, gate (R, dim) float32 or none, and returns the norm of the sum.

        Nothing but x is written to.
        """
        ...

    def norm_heads(self, x: Tensor, weight: Tensor, num_heads: int, eps: float) -> Tensor:
        """RMSNorm over all channels of x (B, L, dim), weight (dim,), cut into heads: (B, L, H, D). May overwrite x."""
        ...

    def attend_text(self, x: Tensor, weight: Tensor, eps: float, text: TextKeys) -> Tensor:
        """RMSNorm over all channels of x (B, L, dim), weight (dim,), then its heads' attention to a text; like x."""
        ...

    def norm_rotate_heads(self, x: Tensor, weight: Tensor, num_heads: int, eps: float, by: Rotary) -> Tensor:
        """As norm_heads, then the rotary embedding; rounded once, after both. May overwrite x."""
        ...

    def norm_rotate_heads8(
        self, x: Tensor, weight: Tensor, eps: float, by: Rotary, mean: Tensor | None, scale: Tensor
    ) -> Heads8:
        """RMSNorm and rotation of x (B, L, dim), less a mean (B, dim) float32, with given scales (B, H); x may go."""
        ...

    def centred_heads8(self, x: Tensor, mean: Tensor, scale: Tensor) -> Heads8:
        """X (B, L, dim) less a mean (B, dim) float32, cut into heads, with given scales (B, H)."""
        ...

    def norm_silu(self, x: Tensor, gamma: Tensor, eps: float, out: Tensor) -> None:
        """Writes SiLU of the RMSNorm of x (B, C, T, H, W) over channels, times gamma (C values), to `out`, like x."""
        ...

    def convolve(self, frames: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """The convolution of frames (B, C, T, H, W) by weight (C', C, t, h, w), plus bias: (B, C', T - t + 1, H, W).

        Beyond a frame's edges there are zeros. Frames and the result are in channels_last_3d.
        """
        ...

    def linear_gelu(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """GELU, in its tanh form, of the product of x (..., in) and weight (out, in), plus bias (out,)."""
        ...

    def gelu_rows(self, x: Tensor) -> Rows8:
        """GELU, in its tanh form, of x (..., K), quantised."""
        ...

    def quantise(self, x: Tensor, addend: Tensor | None = None) -> Rows8:
        """The rows of x (..., K), or of x (B, L, K) plus an addend (B, K) float32, quantised as quantise_rows does."""
        ...

    def matmul_rows(self, x: Rows8, weight: Rows8, bias: Tensor) -> Tensor:
        """The product of x (..., in) and weight (out, in), plus bias (out,), in the bias's dtype."""
        ...


@functools.cache
def operations(device: torch.device) -> Operations:
    """What computes on a device: chosen once, logged, and the same for the life of the process."""
    refusal = _refuse_fused(device)
    if refusal is None:
        from wan22_inference.engine import fused_operations  # noqa: PLC0415  # imports triton

        log.info("Operations between products, on %s: fused kernels.", device)
        return fused_operations
    log.info("Operations between products, on %s: plain ones (%s).", device, refusal)
    return plain_operations


def _refuse_fused(device: torch.device) -> str | None:
    if device.type != "cuda":
        return "the fused ones need a CUDA device"
    if torch.cuda.get_device_capability(device) < (8, 9):
        return "the fused ones need the compute capability 8.9"
    if importlib.util.find_spec("triton") is None:
        return "the package triton is not installed"
    return None
