"""The sizes of a VAE, read from diffusers' config.json."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from wan22_inference.engine.model_files import misfit

_FILE = "vae/config.json"
_FIXED: Mapping[str, tuple[object, ...]] = {"attn_scales": ([],), "dropout": (0, 0.0), "scale_factor_temporal": (4,)}
"""Keys that may be there, with the only values that WAN2.2's VAEs have."""

_MEAN_21 = (
    *(-0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508),
    *(0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921),
)
_STD_21 = (
    *(2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743),
    *(3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160),
)
_DEFAULTS: Mapping[str, object] = {
    "base_dim": 96,
    "decoder_base_dim": None,
    "z_dim": 16,
    "dim_mult": [1, 2, 4, 4],
    "num_res_blocks": 2,
    "temperal_downsample": [False, True, True],
    "latents_mean": list(_MEAN_21),
    "latents_std": list(_STD_21),
    "is_residual": False,
    "in_channels": 3,
    "out_channels": 3,
    "patch_size": None,
    "scale_factor_spatial": 8,
}
"""AutoencoderKLWan's own, which early conversions of the 2.1 VAE leave out."""


@dataclass(frozen=True, kw_only=True)
class VaeConfig:
    """The sizes that differ between the VAEs."""

    encoder_dim: int
    """Channels at the pixels' resolution; the levels below have `multipliers` times as many."""
    decoder_dim: int
    latent_channels: int
    multipliers: tuple[int, ...]
    """From the pixels' level down to the latents'."""
    num_resnets: int
    """Residual blocks a level in the encoder; the decoder has one more."""
    halves_time: tuple[bool, ...]
    """For each step down from one level to the next."""
    residual: bool
    """WAN2.2's: each level has a shortcut around its resampling."""
    patch: int
    """Pixels a side that become channels before the encoder, and again pixels after the decoder."""
    mean: tuple[float, ...]
    std: tuple[float, ...]
    """Of each latent channel: the DiT sees latents less the mean, over the deviation."""

    @property
    def spatial_stride(self) -> int:
        """Pixels a latent has on a side."""
        return int(self.patch * 2 ** (len(self.multipliers) - 1))


def read_vae_config(config: Mapping[str, object]) -> VaeConfig:
    """Reads a parsed vae/config.json.

    Raises FailedPrecondition (MODEL_MISFIT) naming a key that is unknown or of a value that no VAE of WAN2.2 has.
    """
    for key, value in config.items():
        if key in _FIXED:
            if value not in _FIXED[key]:
                raise misfit(f"{_FILE} says {key} is {value}, where this engine knows {_FIXED[key][0]}")
        elif key not in _DEFAULTS and not key.startswith("_"):
            raise misfit(f"{_FILE} has the key {key}, which this engine does not know")
    values = {key: config.get(key, default) for key, default in _DEFAULTS.items()}
    base = _size("base_dim", values["base_dim"])
    decoder_base, patch = values["decoder_base_dim"], values["patch_size"]
    latent_channels = _size("z_dim", values["z_dim"])
    read = VaeConfig(
        encoder_dim=base,
        decoder_dim=base if decoder_base is None else _size("decoder_base_dim", decoder_base),
        latent_channels=latent_channels,
        multipliers=tuple(_size("dim_mult", value) for value in _list("dim_mult", values["dim_mult"])),
        num_resnets=_size("num_res_blocks", values["num_res_blocks"]),
        halves_time=tuple(bool(value) for value in _list("temperal_downsample", values["temperal_downsample"])),
        residual=bool(values["is_residual"]),
        patch=1 if patch is None else _size("patch_size", patch),
        mean=_numbers("latents_mean", values["latents_mean"], latent_channels),
        std=_numbers("latents_std", values["latents_std"], latent_channels),
    )
    _check_levels(read)
    for key, expected in (
        ("in_channels", 3 * read.patch**2),
        ("out_channels", 3 * read.patch**2),
        ("scale_factor_spatial", read.spatial_stride),
    ):
        if values[key] != expected:
            raise misfit(f"{_FILE} says {key} is {values[key]}, where its other sizes make it {expected}")
    return read


def _check_levels(config: VaeConfig) -> None:
    steps = len(config.multipliers) - 1
    if len(config.halves_time) != steps or sum(config.halves_time) != 2:
        flags = list(config.halves_time)
        raise misfit(f"{_FILE} says temperal_downsample is {flags}: it needs {steps} values, two of them true")
    steps_down = zip((1, *config.multipliers), config.multipliers, strict=False)
    last_two = config.multipliers[-2:]
    if any(lower not in {upper, 2 * upper} for upper, lower in steps_down) or last_two[0] != last_two[-1]:
        value = list(config.multipliers)
        raise misfit(
            f"{_FILE} says dim_mult is {value}: each is the one before it or its double, and the last two equal"
        )


def _list(key: str, value: object) -> list[object]:
    if not isinstance(value, list) or not value:
        raise misfit(f"{_FILE} says {key} is {value}, which is no list")
    return value


def _size(key: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise misfit(f"{_FILE} says {key} is {value}, which is no size")
    return value


def _numbers(key: str, value: object, count: int) -> tuple[float, ...]:
    numbers = [number for number in _list(key, value) if isinstance(number, int | float) and math.isfinite(number)]
    if len(numbers) != count:
        raise misfit(f"{_FILE} has {len(numbers)} numbers as {key}, where z_dim is {count}")
    return tuple(float(number) for number in numbers)
