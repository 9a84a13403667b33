"""What the products of a LoRA file are multiplied with: alpha over rank, from wherever the file's style keeps alpha.

kohya and LightX2V store a tensor a layer; diffusers writes PEFT's configuration into the file's metadata; PEFT keeps it
in adapter_config.json beside the file, so that whoever imports the file says it. Without any, alpha is the rank.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from wan22_inference.engine.lora.misfit import misfit

METADATA = "lora_adapter_metadata"
"""The key of the file's metadata under which diffusers writes the configuration, as JSON."""
_EXPRESSION = re.compile(r"[^\w.-]")


@dataclass(frozen=True)
class Scaling:
    """Alpha of the layers of one expert."""

    alpha: float | None = None
    """Of all layers that have none of their own."""
    patterns: Mapping[str, float] = field(default_factory=dict)
    """By the end of a layer's name."""
    rank_stabilised: bool = False
    """Divides by the square root of the rank instead. Source: arxiv.org/abs/2312.03732."""

    def factor(self, base: str, rank: int, stored: float | None) -> float:
        """What a layer's product is multiplied with; `stored` is the alpha that a tensor of its own says."""
        alpha = stored
        if alpha is None:
            ends = (value for end, value in self.patterns.items() if base == end or base.endswith(f".{end}"))
            alpha = next(ends, self.alpha)
        if alpha is None:
            return 1.0
        return alpha / (math.sqrt(rank) if self.rank_stabilised else rank)


def read_scaling(metadata: Mapping[str, str], alpha: float | None) -> tuple[Scaling, Scaling]:
    """For the first expert and the second, from a file's metadata; `alpha` is of a file whose metadata says nothing.

    Raises FailedPrecondition (ADAPTER_MISFIT) for a configuration that changes more than the scale.
    """
    if METADATA not in metadata:
        return Scaling(alpha), Scaling(alpha)
    try:
        config = json.loads(metadata[METADATA])
        plain = {key: value for key, value in config.items() if "." not in key}
        prefixed = [
            {key.removeprefix(prefix): value for key, value in config.items() if key.startswith(prefix)}
            for prefix in ("transformer.", "transformer_2.")
        ]
        first = prefixed[0] or plain
        return _of_config(first), _of_config(prefixed[1] or first)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise misfit(f"its metadata {METADATA} is not what diffusers writes ({error!r})") from None


def _of_config(config: Mapping[str, Any]) -> Scaling:
    if not config:
        return Scaling()
    for switch, kind in (("use_dora", "DoRA"), ("use_qalora", "QALoRA")):
        if config.get(switch):
            raise misfit(f"its metadata says {switch}: {kind} is more than LoRA")
    patterns = {str(end).removeprefix("^"): float(value) for end, value in (config.get("alpha_pattern") or {}).items()}
    for end in patterns:
        if _EXPRESSION.search(end):
            raise misfit(f"its metadata has the alpha_pattern {end!r}, which is an expression: name the layers")
    return Scaling(float(config["lora_alpha"]), patterns, bool(config.get("use_rslora")))
