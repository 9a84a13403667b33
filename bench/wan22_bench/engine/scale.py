"""How large what is measured is: the issue's sizes on a GPU, or tiny ones that only show that every row runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from wan22_bench.engine.peers import PEERS, Prepare, eager
from wan22_inference.engine.options import TextEncoderPlace
from wan22_testing.decodes import DECODE_21, DECODE_22, TINY_DECODE_21, TINY_DECODE_22, Decoding
from wan22_testing.forwards import Work
from wan22_testing.modes import Mode
from wan22_testing.sizes import UMT5_TINY, UMT5_XXL

GIGABYTE = 10**9


@dataclass(frozen=True)
class Cap:
    """A generation under a limit of the device's memory."""

    id: str
    work: Work
    limit: int
    """Bytes."""
    asked: float | None = None
    """Seconds in which a desktop card was said to make one."""


@dataclass(frozen=True)
class Scale:
    """What each row runs."""

    dry: bool
    """Whether figures mean nothing, so that goals and floors are left out."""
    forwards: Mapping[str, Work]
    """By the row's first two letters."""
    errors: tuple[Work, ...]
    """Where errors are measured: few layers, so that the float32 reference fits beside the others."""
    seeds: tuple[int, ...]
    """Of the errors' weights; times are those of the first."""
    peers: Mapping[Mode, Prepare]
    decodes: Mapping[str, Decoding]
    generation: Work
    text_encoder: dict[str, int]
    caps: tuple[Cap, ...]
    text_encoder_under_caps: TextEncoderPlace


_T2V, _I2V, _TI2V = "t2v-a14b", "i2v-a14b", "ti2v-5b"
H100 = Scale(
    dry=False,
    forwards={
        "P1": Work(_T2V, 40, 832, 480, 81),
        "P2": Work(_T2V, 40, 832, 480, 81),
        "P5": Work(_T2V, 40, 1280, 720, 81),
        "P6": Work(_TI2V, 30, 1280, 704, 121),
    },
    errors=(Work(_T2V, 8, 480, 320, 17), Work(_TI2V, 8, 480, 320, 17)),
    seeds=(1, 2, 3),
    peers=PEERS,
    decodes={"P7a": DECODE_21, "P7b": DECODE_22},
    generation=Work(_T2V, 40, 832, 480, 81),
    text_encoder=UMT5_XXL,
    caps=(
        Cap("P11a", Work(_T2V, 40, 512, 512, 81), 12 * GIGABYTE, 45.0),
        Cap("P11b", Work(_T2V, 40, 1024, 1024, 81), 15 * GIGABYTE, 120.0),
        Cap("P11c", Work(_I2V, 40, 512, 512, 81), 10 * GIGABYTE, 35.0),
        Cap("P11d", Work(_TI2V, 30, 832, 480, 49), 8 * GIGABYTE),
        Cap("P11d", Work(_T2V, 40, 832, 480, 33), 8 * GIGABYTE),
    ),
    text_encoder_under_caps=TextEncoderPlace.CPU,
)
_TINY_T2V, _TINY_I2V, _TINY_TI2V = (Work(f"{variant}-tiny", 2, 64, 64, 5) for variant in (_T2V, _I2V, _TI2V))
_DRY_T2V, _DRY_TI2V = (Work(f"{variant}-tiny", 3, 64, 64, 5) for variant in (_T2V, _TI2V))
"""With a block whose attention is in float8."""
DRY = Scale(
    dry=True,
    forwards={"P1": _DRY_T2V, "P2": _DRY_T2V, "P5": Work(f"{_T2V}-tiny", 3, 96, 64, 5), "P6": _DRY_TI2V},
    errors=(_DRY_T2V, _DRY_TI2V),
    seeds=(1,),
    peers=dict.fromkeys(Mode, eager),
    decodes={"P7a": TINY_DECODE_21, "P7b": TINY_DECODE_22},
    generation=_TINY_T2V,
    text_encoder=UMT5_TINY,
    caps=(
        Cap("P11a", _TINY_T2V, 1 * GIGABYTE),
        Cap("P11b", _TINY_T2V, 1 * GIGABYTE),
        Cap("P11c", _TINY_I2V, 1 * GIGABYTE),
        Cap("P11d", _TINY_TI2V, 1 * GIGABYTE),
    ),
    text_encoder_under_caps=TextEncoderPlace.DEVICE,
)


def vae_config(scale: Scale, variant: str) -> dict[str, Any]:
    """Of the VAE of a variant, at that scale."""
    return scale.decodes["P7b" if variant.startswith(_TI2V) else "P7a"].config
