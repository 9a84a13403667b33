"""What determines a video. Nothing in it differs between two attempts: no time, no id, no worker, no duration."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Self

from wan22.errors import InvalidRequest
from wan22.loras import RequestedLora
from wan22.parameters import Parameters, RequestedParameters
from wan22.profiles import Profile
from wan22.solvers import Solver

FORMAT = 1
"""Raised when a reader of the earlier format would misunderstand the new one."""
_TEXTS = ("prompt", "negative_prompt")


@dataclass(frozen=True)
class Recipe:
    """Effective parameters, the model's digest, and the numerics that it was made by."""

    variant: str
    model_version: str
    """Format: models/{model}/versions/{digest}."""
    parameters: Mapping[str, Any]
    """Every parameter that takes effect, by name. A text that was left out is {"sha256": hex digits} instead."""
    numerics: Mapping[str, str]
    """What may change bits beside the above, by name: libraries, card, options."""
    economy: Mapping[str, int] = field(default_factory=dict)
    """What was done to need less memory, by name; nothing by default."""

    @classmethod
    def make(cls, variant: str, model_version: str, parameters: Parameters, numerics: Mapping[str, str]) -> Self:
        """The recipe of a generation."""
        given = {name: value for name, value in asdict(parameters).items() if value is not None}
        given["loras"] = list(given["loras"])
        if not given["loras"]:
            del given["loras"]
        return cls(variant, model_version, given, dict(numerics))

    def without_texts(self) -> Recipe:
        """The same with the digests of prompt and negative prompt in their places."""
        hidden = {
            name: {"sha256": hashlib.sha256(value.encode()).hexdigest()} if name in _TEXTS else value
            for name, value in self.parameters.items()
        }
        return replace(self, parameters=hidden)

    def with_economy(self, entries: Mapping[str, int]) -> Recipe:
        """The same with what took effect."""
        return replace(self, economy=dict(entries))

    def with_text(self, name: str, text: str) -> Recipe:
        """The same with a text put back. Raises InvalidRequest when it is another one than was left out."""
        kept = self.parameters[name]
        digest = kept["sha256"] if isinstance(kept, dict) else hashlib.sha256(kept.encode()).hexdigest()
        if digest != hashlib.sha256(text.encode()).hexdigest():
            raise InvalidRequest(f"{name} is not the text that the video was made of: its digest is {digest}.")
        return replace(self, parameters={**self.parameters, name: text})

    @property
    def hidden_texts(self) -> list[str]:
        """Names of the texts that were left out."""
        return [name for name in _TEXTS if isinstance(self.parameters.get(name), dict)]

    def requested(self) -> RequestedParameters:
        """The parameters as a request for the same again; no text may be missing."""
        given = dict(self.parameters)
        given["solver"] = Solver(given["solver"])
        given["profile"] = Profile(given["profile"])
        given["loras"] = tuple(RequestedLora.of(lora) for lora in given.get("loras", ()))
        return RequestedParameters(**given)

    def to_json(self) -> str:
        """The canonical form: sorted keys, no spaces."""
        return _canonical({"wan22_recipe": FORMAT, **asdict(self)})

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Reads the canonical form. Raises InvalidRequest for what is none, or of a later format."""
        try:
            fields = json.loads(text)
            version = fields.pop("wan22_recipe")
            recipe = cls(**fields)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise InvalidRequest(f"This is no recipe of wan22 ({type(error).__name__}: {error}).") from error
        if version != FORMAT:
            raise InvalidRequest(f"The recipe has format {version}, this program reads {FORMAT}: use a newer one.")
        return recipe


def numerics_digest(numerics: Mapping[str, str]) -> str:
    """SHA-256 of the canonical JSON form; equal for two workers that make the same bits."""
    return "sha256:" + hashlib.sha256(_canonical(dict(numerics)).encode()).hexdigest()


def differences(made_by: Mapping[str, str], here: Mapping[str, str]) -> list[str]:
    """One sentence for each entry of two numerics that differs, by name."""
    return [
        f"{name} was {made_by.get(name, 'absent')}, is {here.get(name, 'absent')}"
        for name in sorted(made_by.keys() | here.keys())
        if made_by.get(name) != here.get(name)
    ]


def _canonical(value: Mapping[str, Any]) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
