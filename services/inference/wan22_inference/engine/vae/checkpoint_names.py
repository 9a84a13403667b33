"""The names that checkpoints use for the VAE's parameters: diffusers' and the official repository's.

Sources: AutoencoderKLWan of diffusers; wan/modules/vae2_1.py and vae2_2.py of Wan-Video/Wan2.2.
"""

from __future__ import annotations

from collections.abc import Mapping

from wan22_inference.engine.vae.config import VaeConfig

_DIRECT: Mapping[str, tuple[str, str]] = {
    "encoder.quant_conv": ("quant_conv", "conv1"),
    "decoder.post_quant_conv": ("post_quant_conv", "conv2"),
    "conv_in": ("conv_in", "conv1"),
    "head.norm": ("norm_out", "head.0"),
    "head.conv": ("conv_out", "head.2"),
    "middle.before": ("mid_block.resnets.0", "middle.0"),
    "middle.after": ("mid_block.resnets.1", "middle.2"),
    "middle.attention": ("mid_block.attentions.0", "middle.1"),
}
_RESNET: Mapping[str, tuple[str, str]] = {
    "first.norm": ("norm1", "residual.0"),
    "first.conv": ("conv1", "residual.2"),
    "second.norm": ("norm2", "residual.3"),
    "second.conv": ("conv2", "residual.6"),
    "shortcut": ("conv_shortcut", "shortcut"),
}
_ATTENTION: Mapping[str, tuple[str, str]] = {
    "norm": ("norm", "norm"),
    "qkv": ("to_qkv", "to_qkv"),
    "out": ("proj", "proj"),
}
_RESAMPLE: Mapping[str, tuple[str, str]] = {
    "conv": ("resample.1", "resample.1"),
    "time_conv": ("time_conv", "time_conv"),
}


def checkpoint_names(name: str, config: VaeConfig) -> tuple[str, str]:
    """Diffusers' name and the official one of a parameter of engine/vae. Raises KeyError for a name that is none."""
    module, _, leaf = name.rpartition(".")
    if module in _DIRECT:
        diffusers, official = _DIRECT[module]
        return f"{diffusers}.{leaf}", f"{official}.{leaf}"
    side, _, module = module.partition(".")
    diffusers, official = _block(side, module, config) if module.startswith("blocks.") else _plain(module)
    return f"{side}.{diffusers}.{leaf}", f"{side}.{official}.{leaf}"


def _plain(module: str) -> tuple[str, str]:
    if module in _DIRECT:
        return _DIRECT[module]
    middle, part, rest = module.split(".", 2)
    diffusers, official = _DIRECT[f"{middle}.{part}"]
    inner = (_ATTENTION if part == "attention" else _RESNET)[rest]
    return f"{diffusers}.{inner[0]}", f"{official}.{inner[1]}"


def _block(side: str, module: str, config: VaeConfig) -> tuple[str, str]:
    """Sources number the parts of a level within it (2.2), or those of all levels through (2.1, the encoder)."""
    _, number, kind, rest = module.split(".", 3)
    level = int(number)
    decodes = side == "decoder"
    resnets = config.num_resnets + decodes
    if kind == "resnets":
        part, _, rest = rest.partition(".")
        index, inner = int(part), _RESNET[rest]
    else:
        index, inner = resnets, _RESAMPLE[rest]
    levels = "up_blocks" if decodes else "down_blocks"
    sampler = ("upsampler" if config.residual else "upsamplers.0") if decodes else "downsampler"
    within = f"resnets.{index}" if kind == "resnets" else sampler
    flat = level * (resnets + 1) + index
    group = "upsamples" if decodes else "downsamples"
    diffusers = f"{levels}.{level}.{within}" if decodes or config.residual else f"{levels}.{flat}"
    official = f"{group}.{level}.{group}.{index}" if config.residual else f"{group}.{flat}"
    return f"{diffusers}.{inner[0]}", f"{official}.{inner[1]}"
