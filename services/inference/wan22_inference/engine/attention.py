"""Scaled dot-product attention, and the choice of what computes it."""

from __future__ import annotations

import functools
import importlib
import logging
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812  # torch's own convention
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

log = logging.getLogger(__name__)

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]

_FLASH_ATTENTION_3 = "fa3_fwd._C"
"""The module of the wheel fa3-fwd: FlashAttention-3's forward for Hopper, in bfloat16 and float8."""
_TOLERANCE = 0.02
"""Relative L2 error that a backend may have on its trial; bfloat16's own is below 0.005."""


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(D)) v by the fastest backend that is exact to the inputs' dtype on their device.

    q is (B, L, H, D), k and v are (B, M, H, D), the result is like q. Nothing is masked.
    """
    return choose(q.device, q.dtype, q.shape[-1]).attend(q, k, v)


@dataclass(frozen=True)
class Choice:
    """A backend, and why it is the one."""

    name: str
    """fa3, cudnn or sdpa."""
    attend: Attend
    reason: str


@functools.cache
def choose(device: torch.device, dtype: torch.dtype, head_dim: int) -> Choice:
    """What computes attention for such tensors: chosen once, logged, and the same for the life of the process."""
    choice = _choose(device, dtype, head_dim)
    log.info("Attention of %s, heads of %d, on %s: %s (%s).", dtype, head_dim, device, choice.name, choice.reason)
    return choice


def _choose(device: torch.device, dtype: torch.dtype, head_dim: int) -> Choice:
    if device.type != "cuda":
        return Choice("sdpa", sdpa, "the others need a CUDA device")
    refusals: list[str] = []
    for name, attend, refuse in (
        ("fa3", flash_attention_3, refuse_flash_attention_3),
        ("cudnn", cudnn, _refuse_cudnn),
    ):
        refusal = refuse(device, dtype, head_dim) or _try(attend, device, dtype, head_dim)
        if refusal is None:
            return Choice(name, attend, "; ".join(refusals) or "the fastest")
        refusals.append(f"not {name}: {refusal}")
    return Choice("sdpa", sdpa, "; ".join(refusals))


def sdpa(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Torch's own choice of kernel; the plain path, for all devices and dtypes."""
    return F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)).transpose(1, 2)


def cudnn(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """CuDNN's fused kernel: half precision, Ampere and newer."""
    with sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
        return sdpa(q, k, v)


def flash_attention_3(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """FlashAttention-3 of the optional wheel fa3-fwd: bfloat16 on Hopper."""
    return load_flash_attention_3()(q, k, v)


@functools.cache
def load_flash_attention_3() -> Callable[..., Tensor]:
    """The wheel's kernel of q, k, v and perhaps their scales. Raises what loading it raises.

    It is called as torch's operator: the wheel's own function is for training too, and its first call imports
    `torch._dynamo`, a second of Python.
    """
    importlib.import_module(_FLASH_ATTENTION_3)
    forward = torch.ops.fa3_fwd.fwd.default

    def attend(q: Tensor, k: Tensor, v: Tensor, **scales: Tensor) -> Tensor:
        out: Tensor = forward(q, k, v, softmax_scale=q.shape[-1] ** -0.5, num_splits=1, **scales)[0]
        return out

    return attend


def refuse_flash_attention_3(device: torch.device, dtype: torch.dtype, head_dim: int) -> str | None:
    """Why FlashAttention-3 is not for such heads on a device; None where it may be."""
    if torch.cuda.get_device_capability(device)[0] != 9:
        return "it is for Hopper"
    if dtype is not torch.bfloat16 or head_dim > 256 or head_dim % 8:
        return "it takes bfloat16 and heads of up to 256"
    try:
        load_flash_attention_3()
    except ModuleNotFoundError:
        return "the package fa3-fwd is not installed"
    except (ImportError, OSError, RuntimeError) as error:
        return f"the package fa3-fwd cannot be loaded ({error})"
    return None


def _refuse_cudnn(device: torch.device, dtype: torch.dtype, head_dim: int) -> str | None:
    if torch.cuda.get_device_capability(device)[0] < 8:
        return "it is for Ampere and newer"
    if dtype not in {torch.bfloat16, torch.float16} or head_dim > 128 or head_dim % 8:
        return "it takes half precision and heads of up to 128"
    return None


def _try(attend: Attend, device: torch.device, dtype: torch.dtype, head_dim: int) -> str | None:
    """Why a backend is not to be used after a small trial; a package that does not fit the device shows here."""
    generator = torch.Generator("cpu").manual_seed(0)
    q, k, v = torch.randn(3, 1, 192, 2, head_dim, generator=generator).to(device, dtype)
    expected = sdpa(q.float(), k.float(), v.float())
    return refuse_after_trial(lambda: attend(q, k, v), expected, _TOLERANCE)


def refuse_after_trial(attend: Callable[[], Tensor], expected: Tensor, tolerance: float) -> str | None:
    """Why a backend is not to be used: it fails, or is farther from what is expected than that, relative L2."""
    try:
        out = attend().float()
    except torch.OutOfMemoryError:
        raise  # says nothing about the backend
    except RuntimeError as error:
        return f"its trial failed ({error})"
    difference = float((out - expected).norm() / expected.norm())
    return None if difference <= tolerance else f"its trial's relative error was {difference:.2g}"
