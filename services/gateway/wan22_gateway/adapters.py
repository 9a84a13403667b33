"""The LoRA adapters that a request names, found in the registry and held against what they were made for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from wan22.adapter import WEIGHTS_FILE
from wan22.errors import FailedPrecondition, InvalidRequest, Reason, Violation
from wan22.loras import Expert, RequestedLora
from wan22.model_client import ModelClient
from wan22.names import VersionName, VersionReference
from wan22.tls import Tls
from wan22.v1 import model_pb2
from wan22.variants import Variant

_TARGETS = {
    model_pb2.Adapter.HIGH: Expert.HIGH,
    model_pb2.Adapter.LOW: Expert.LOW,
    model_pb2.Adapter.BOTH: Expert.BOTH,
}


@dataclass(frozen=True)
class Found:
    """A request's adapters, by their versions."""

    loras: tuple[RequestedLora, ...] = ()
    """With every field."""
    distilled: frozenset[int] = frozenset()
    """The experts that one of them distils for profile `turbo`, by index."""
    device_bytes: int = 0
    """The most that they take of a device at once, which is one expert's: as they are stored, so that float32 counts
    double."""


class Adapters:
    """Asks a registry for them, each time anew: an approval may end."""

    def __init__(self, registry: str, tls: Tls | None = None) -> None:
        self._registry = registry
        self._tls = tls

    async def find(self, variant: Variant, requested: Sequence[RequestedLora]) -> Found:
        """Completes what a request says of its adapters.

        Raises NotFound for one that is not there, InvalidRequest naming every field that one was not made for,
        FailedPrecondition (ADAPTER_NOT_APPROVED), Unavailable while the registry does not answer.
        """
        if not requested:
            return Found()
        references = [_reference(lora, number) for number, lora in enumerate(requested)]
        async with ModelClient(self._registry, self._tls) as client:
            versions = [await _version(client, reference) for reference in references]
        problems: list[Violation] = []
        complete, distilled = [], set[int]()
        sizes = [0] * variant.experts
        for number, (lora, version) in enumerate(zip(requested, versions, strict=True)):
            fitted = _fitted(variant, lora, version, f"parameters.loras[{number}]", problems)
            complete.append(fitted)
            indexes = fitted.expert.indexes(variant.experts) if fitted.expert is not None else ()
            for index in indexes:
                sizes[index] += _weights_bytes(version, variant)
            if version.adapter.turbo:
                distilled.update(indexes)
        if problems:
            raise InvalidRequest(" ".join(problem.description for problem in problems), violations=problems)
        for version in versions:
            if not version.adapter.approved:
                text = f"{version.name} is not approved: have it approved by `wan22 models approve`, or leave it out."
                raise FailedPrecondition(text, reason=Reason.ADAPTER_NOT_APPROVED)
        return Found(tuple(complete), frozenset(distilled), max(sizes))


def _reference(lora: RequestedLora, number: int) -> VersionName | VersionReference:
    parse = VersionName.parse if lora.adapter.startswith("models/") else VersionReference.parse
    return parse(lora.adapter, f"parameters.loras[{number}].adapter")


async def _version(client: ModelClient, reference: VersionName | VersionReference) -> model_pb2.Version:
    if isinstance(reference, VersionName):
        return await client.get_version(str(reference))
    return await client.resolve(str(reference))


def _weights_bytes(version: model_pb2.Version, variant: Variant) -> int:
    """Of one expert, of two equal shares where the file has both."""
    size = sum(file.size_bytes for file in version.files if file.path == WEIGHTS_FILE)
    both = version.adapter.target_expert == model_pb2.Adapter.BOTH
    return size // variant.experts if both else size


def _fitted(
    variant: Variant, lora: RequestedLora, version: model_pb2.Version, field: str, problems: list[Violation]
) -> RequestedLora:
    """One adapter, its expert and its strength filled in from its version; what is wrong goes to `problems`."""
    adapter = version.adapter

    def complain(of: str, text: str) -> None:
        problems.append(Violation(f"{field}.{of}", f"{lora.adapter} {text}."))

    if not version.HasField("adapter"):
        complain("adapter", "is a whole model, not an adapter: name what `wan22 models import-lora` has imported")
        return lora
    if version.variant != variant.name:
        complain("adapter", f"was made for {version.variant}, not for {variant.name}: leave it out")
    target = _TARGETS[adapter.target_expert]
    expert = lora.expert or target
    if not set(expert.indexes(2)) <= set(target.indexes(2)):
        complain("expert", f"was made for the expert {target}, not for {expert}: leave the expert out")
    low, high = adapter.min_strength, adapter.max_strength
    strength = min(max(1.0, low), high) if lora.strength is None else lora.strength
    if not low <= strength <= high:
        nearest = low if strength < low else high
        complain("strength", f"takes a strength from {low:g} to {high:g}, not {strength:g}; the nearest is {nearest:g}")
    return RequestedLora(adapter=version.name, expert=expert, strength=strength)
