"""Where the model runs, and in which precision."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from wan22.errors import InvalidRequest, Reason


def choose_device(name: str) -> torch.device:
    """Turns `auto`, `cpu` or `cuda[:N]` into a device; auto is the first CUDA device where there is one, else the CPU.

    A CUDA device always has its index, which is 0 for `cuda`: much of torch.cuda refuses a device without one. Raises
    InvalidRequest for anything else, and for a CUDA device that is not there.
    """
    if name == "auto":
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in {"cpu", "cuda"}:
        raise InvalidRequest(
            f"device is {name!r}: use auto, cpu, cuda or cuda:N.", field="device", reason=Reason.BAD_SETTING
        )
    if device.type == "cpu":
        return device
    index = device.index or 0
    if index >= (count := torch.cuda.device_count()):
        raise InvalidRequest(
            f"device is {name!r}, but torch sees {count} CUDA devices: use auto or cpu, or install a CUDA build.",
            field="device",
            reason=Reason.BAD_SETTING,
        )
    return torch.device("cuda", index)


def compute_dtype(device: torch.device) -> torch.dtype:
    """The dtype of the text encoder and the DiT: bfloat16 as the official weights, float32 on a CPU."""
    return torch.bfloat16 if device.type == "cuda" else torch.float32


@contextmanager
def full_float32() -> Iterator[None]:
    """Float32 convolutions and products in float32: torch lets convolutions use TF32, with its 10 bits, by default."""
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before
