"""Which version a reference means, as the registry says it; asked once for all pools that name it."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from wan22.errors import DeadlineExceeded, FailedPrecondition, InvalidRequest, NotFound, Reason, Wan22Error
from wan22.model_client import ModelClient
from wan22.names import VersionReference
from wan22.v1.model_pb2 import Version
from wan22_operator.names import REGISTRY
from wan22_operator.silence import Silence

ANSWER_SECONDS = 5.0
"""How long one answer may take: a registry may be stopped, or half cut off."""
SILENT_SECONDS = 10.0
"""How long a registry that did not answer is not asked again."""


@dataclass(frozen=True, slots=True)
class Resolved:
    """A version, and what of it the operator needs."""

    name: str
    """Format: models/{model}/versions/{digest}."""
    variant: str
    size_bytes: int


class Models:
    """Answers of the registry, each kept for a while."""

    def __init__(self, client: ModelClient, keep_seconds: float) -> None:
        self._client = client
        self._keep_seconds = keep_seconds
        self._known: dict[str, tuple[float, Version]] = {}
        self._silence = Silence(SILENT_SECONDS)
        self._asking: dict[str, asyncio.Lock] = {}

    async def resolve(self, reference: str, precision: str | None = None) -> Resolved:
        """The version of `MODEL[:TAG][@sha256:DIGEST]`.

        Raises NotFound, Unavailable; FailedPrecondition for one of another precision, InvalidRequest for an adapter.
        """
        async with self._asking.setdefault(reference, asyncio.Lock()):
            known = self._known.get(reference)
            if known is None or time.monotonic() - known[0] > self._keep_seconds:
                answer = await self._silence.ask(REGISTRY, lambda: self._ask(reference))
                known = self._known[reference] = (time.monotonic(), answer)
        version = known[1]
        if version.HasField("adapter"):
            text = f"{reference} is a LoRA adapter, which is added to a model: name a model."
            raise InvalidRequest(text, field="spec.model")
        others = {"bf16", "fp8"} & set(version.tags)
        if precision is not None and others and precision not in others:
            text = f"{reference} is of precision {', '.join(sorted(others))}, not {precision}: name another tag."
            raise FailedPrecondition(text, reason=Reason.MODEL_MISFIT)
        return Resolved(version.name, version.variant, version.size_bytes)

    async def _ask(self, reference: str) -> Version:
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                return await self._client.resolve(reference)
        except TimeoutError as error:
            raise DeadlineExceeded(f"The registry does not answer within {ANSWER_SECONDS:g} s.") from error


def waiting_for(reference: str, error: Wan22Error) -> str:
    """The sentence of a condition for a model that is not there."""
    if not isinstance(error, NotFound):
        return f"Waiting for model {reference}: {error.message}"
    what = "no such model" if error.message.startswith("Model ") else _part(VersionReference.parse(reference))
    return f"Waiting for model {reference}: {what}. {error.message}"


def _part(reference: VersionReference) -> str:
    return "no such tag" if reference.digest is None else "no such version"
