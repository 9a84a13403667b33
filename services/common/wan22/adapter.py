"""LoRA adapters: small weights added to those of a variant, kept in the registry as models of their own."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self, get_args

from wan22.errors import InvalidRequest, Reason
from wan22.variants import VARIANTS

ADAPTER_FILE = "adapter.json"
"""What an adapter is for; a version that has this file is an adapter."""
WEIGHTS_FILE = "lora.safetensors"
"""The only other file of an adapter; never packed, since its few bytes are to stay what they were published as."""
LARGEST_STRENGTH = 10.0
"""Far beyond what adapters are made for; more is a mistake."""
Expert = Literal["high", "low", "both"]


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """What an adapter was made for: part of its version and so immutable. Whether it is approved is not in here."""

    base_variant: str
    """Whose weights it is added to."""
    target_expert: Expert
    """The high-noise expert, the low-noise one, or both; of a variant with one expert always `both`."""
    min_strength: float
    max_strength: float
    """What a request may multiply it with, both included."""
    turbo: bool = False
    """Whether it distils the variant to the few steps of profile `turbo`."""
    alpha: float | None = None
    """Of files that do not tell it themselves, as PEFT's, which have it in adapter_config.json; None is the rank."""

    def __post_init__(self) -> None:
        """Raises InvalidRequest naming the field that is wrong."""
        variant = VARIANTS.get(self.base_variant) if isinstance(self.base_variant, str) else None
        if variant is None:
            raise _wrong("base_variant", self.base_variant, f"use one of {', '.join(VARIANTS)}")
        if self.target_expert not in get_args(Expert):
            raise _wrong("target_expert", self.target_expert, f"use {', '.join(get_args(Expert))}")
        if variant.experts == 1 and self.target_expert != "both":
            raise _wrong("target_expert", self.target_expert, f"{variant.name} has one expert: use both")
        for name, value in (("min_strength", self.min_strength), ("max_strength", self.max_strength)):
            if not _is_number(value) or abs(value) > LARGEST_STRENGTH:
                raise _wrong(name, value, f"use a number from -{LARGEST_STRENGTH:g} to {LARGEST_STRENGTH:g}")
        if self.min_strength > self.max_strength:
            raise _wrong("min_strength", self.min_strength, f"use at most max_strength, {self.max_strength:g}")
        if not isinstance(self.turbo, bool):
            raise _wrong("turbo", self.turbo, "use true or false")
        if self.alpha is not None and not (_is_number(self.alpha) and self.alpha > 0):
            raise _wrong("alpha", self.alpha, "use a number above 0")

    def to_json(self) -> bytes:
        """The content of adapter.json, the same bytes for the same adapter."""
        fields = {name: value for name, value in asdict(self).items() if value is not None}
        return json.dumps(fields, sort_keys=True, indent=2).encode() + b"\n"

    @classmethod
    def from_json(cls, content: bytes) -> Self:
        """Reads adapter.json strictly. Raises InvalidRequest (FORBIDDEN_FILE for what is no such object)."""
        try:
            fields: Any = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise _no_adapter(f"it is not JSON: {error}") from None
        if not isinstance(fields, dict):
            raise _no_adapter("it is no JSON object")
        known = set(cls.__dataclass_fields__)
        if unknown := sorted(fields.keys() - known):
            raise _no_adapter(f"it has the key {unknown[0]!r}, and may have {', '.join(sorted(known))}")
        if missing := sorted(known - fields.keys() - {"turbo", "alpha"}):
            raise _no_adapter(f"it lacks {missing[0]}")
        return cls(**fields)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _wrong(field: str, value: object, advice: str) -> InvalidRequest:
    return InvalidRequest(f"An adapter's {field} is {value!r}: {advice}.", field=field)


def _no_adapter(why: str) -> InvalidRequest:
    return InvalidRequest(f"{ADAPTER_FILE} is refused: {why}.", field="files", reason=Reason.FORBIDDEN_FILE)
