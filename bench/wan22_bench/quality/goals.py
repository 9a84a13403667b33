"""The rows, and what they are to reach."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from wan22_bench.quality.takes import I2V, OPTIONS, T2V, TI2V, VARIANTS_TAKES
from wan22_bench.report import Row

VAES = {"vae21": T2V, "vae22": TI2V}
"""Whose VAE each row is of."""


def _share(name: str, what: str, goal: float | None = None) -> Row:
    return Row(id=name, what=what, value=None, unit="1", goal=goal, at_least=True)


def _decibels(name: str, what: str, goal: float) -> Row:
    return Row(id=name, what=what, value=None, unit="dB", goal=goal, at_least=True)


_GOALS = {"t2v": 0.95, "ti2v": 0.95, "turbo": 0.90}
_OF_PROMPTS = "share of held-out prompts read back right"
ROWS: Mapping[str, Sequence[Row]] = {
    "judge": [_share("judge", "share of held-out true clips read right", 0.99)],
    **{
        name: [
            _decibels(name, f"PSNR of true clips through the VAE of {variant} and back", 32.0),
            _share(name, "share of these clips read right when they are back", 0.98),
        ]
        for name, variant in VAES.items()
    },
    **{
        name: [_share(name, f"{_OF_PROMPTS}, {take.variant}, {take.what}", _GOALS.get(name))]
        for name, take in VARIANTS_TAKES.items()
    },
    "chance": [_share("chance", "share of t2v's videos that show what another's prompt says")],
    **{
        name: [_share(name, f"{_OF_PROMPTS}, {take.variant}, {take.what}; peer: t2v")] for name, take in OPTIONS.items()
    },
}
"""By name; each row's first frame comes before its share."""
ROWS = {
    **ROWS,
    "i2v": [_decibels("i2v", f"PSNR of the first frame of {I2V}'s videos to the given one", 30.0), *ROWS["i2v"]],
}
