"""The policies compared, and the grid in which each is tuned."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from wan22_bench.scaling.policies.foresight import Foresight, ForesightSettings
from wan22_bench.scaling.policies.hpa import Hpa, HpaSettings
from wan22_bench.scaling.policies.keda import Keda, KedaSettings
from wan22_bench.scaling.policies.kpa import Kpa, KpaSettings
from wan22_bench.scaling.policies.ours import Ours
from wan22_bench.scaling.simulator import Policy
from wan22_operator.scaling.tuning import Tuning


@dataclass(frozen=True)
class Family:
    """A policy with settings to choose from."""

    name: str
    make: Callable[[dict[str, Any]], Policy]
    grid: Sequence[dict[str, Any]]
    """Settings in the order tried; the first are the policy's own defaults."""


def _grid(**choices: Sequence[Any]) -> Iterator[dict[str, Any]]:
    for values in product(*choices.values()):
        yield dict(zip(choices, values, strict=True))


_TARGETS = {
    "queued": (1.0, 2.0, 3.0),
    "outstanding": (0.85, 1.0, 1.15, 1.3, 1.5, 1.75, 2.0),
    "seconds": (60.0, 120.0, 180.0, 240.0),
}
"""Average values a worker: of generations, and of predicted seconds."""
_TARGET = [(metric, target) for metric, targets in _TARGETS.items() for target in targets]


def _hpa_grid(**more: Sequence[Any]) -> list[dict[str, Any]]:
    plain = _grid(metric_target=_TARGET, down_window_seconds=(0.0, 30.0, 60.0, 120.0, 300.0), **more)
    return [
        {"metric": metric, "target": target, **rest}
        for ((metric, target), rest) in ((choice.pop("metric_target"), choice) for choice in plain)
    ]


OURS = Family(
    "wan22",
    lambda settings: Ours(Tuning(**settings) if settings else None),
    [
        {},
        *(
            choice
            for choice in _grid(
                start_share=(0.0, 0.75),
                keep_share=(0.75, 1.5, 3.0),
                hold_loads=(0.05, 0.15),
                objective_share=(0.9, 0.95, 1.0),
            )
            if choice["keep_share"] > choice["start_share"]
        ),
    ],
)
HPA = Family("HPA", lambda settings: Hpa(HpaSettings(**settings)), [{}, *_hpa_grid(tolerance=(0.0, 0.1))])
KEDA = Family(
    "KEDA",
    lambda settings: Keda(KedaSettings(**settings)),
    [
        {},
        *_hpa_grid(cooldown_seconds=(0.0, 60.0, 300.0), polling_seconds=(5.0,)),
        *_hpa_grid(cooldown_seconds=(0.0,), polling_seconds=(5.0,), tolerance=(0.0,)),
        *_hpa_grid(cooldown_seconds=(0.0,), polling_seconds=(5.0,), down_percent=(25.0, 50.0)),
    ],
)
KPA = Family(
    "KPA",
    lambda settings: Kpa(KpaSettings(**settings)),
    [
        {"target": 0.7},
        *_grid(
            target=(0.7, 0.85, 1.0, 1.15, 1.3, 1.5, 1.75, 2.0),
            stable_window_seconds=(30.0, 60.0, 120.0, 300.0),
            panic_threshold=(2.0, 10.0),
            scale_down_delay_seconds=(0.0, 60.0),
        ),
    ],
)
FORESIGHT = Family("foresight", lambda settings: Foresight(ForesightSettings(**settings)), [{}])
"""No peer, and nothing to tune: it knows the future."""
FAMILIES = (OURS, HPA, KEDA, KPA)
