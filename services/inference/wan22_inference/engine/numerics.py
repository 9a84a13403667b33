"""What may change the bits of a video beside its parameters: libraries, card, options, kernels."""

from __future__ import annotations

import importlib.metadata

import torch

from wan22_inference.engine.attention import choose
from wan22_inference.engine.attention8 import choose8
from wan22_inference.engine.model import Model
from wan22_inference.engine.operations import operations
from wan22_inference.engine.options import EngineOptions

ENGINE_VERSION = 3
"""Raised whenever a change to the engine may change bits."""
_LIBRARIES = ("torch", "triton", "tokenizers", "ftfy", "fa3-fwd", "av", "numpy", "pillow")


def numerics(model: Model, options: EngineOptions) -> dict[str, str]:
    """Every entry by name; two workers with equal entries make the same video, bit for bit, of the same recipe."""
    device, config = model.device, model.transformers[0].config
    entries = {
        "engine": str(ENGINE_VERSION),
        "device": _device(device),
        "gpus": str(int(device.type == "cuda")),
        "dtype": str(model.transformers[0].dtype).removeprefix("torch."),
        "attention": choose(device, model.transformers[0].dtype, config.head_dim).name,
        "operations": operations(device).__name__.rpartition(".")[2],  # type: ignore[attr-defined]  # a module
    }
    if options.attention8:
        entries["self-attention"] = choose8(device, config.head_dim).name
    entries |= {f"option {name}": value for name, value in options.bits().items()}
    return entries | {f"library {name}": version for name in _LIBRARIES if (version := _version(name))}


def _device(device: torch.device) -> str:
    if device.type == "cuda":
        cudnn = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]  # torch's
        return f"{torch.cuda.get_device_name(device)}, CUDA {torch.version.cuda}, cuDNN {cudnn}"
    return f"CPU, {torch.backends.cpu.get_cpu_capability()}"


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
