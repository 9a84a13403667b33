"""What a request must be beside its parameters, which have rules of their own (`wan22.parameters`)."""

from __future__ import annotations

from collections.abc import Iterator

from wan22.errors import FailedPrecondition, InvalidRequest, Reason, Violation
from wan22.names import check_pool
from wan22.parameters import Parameters
from wan22.previews import MAX_INTERVAL
from wan22.profiles import Profile
from wan22.v1 import generation_pb2
from wan22.variants import MAX_PROMPT_TOKENS, Variant
from wan22_gateway import output_only
from wan22_gateway.scheduling.shares import Priority
from wan22_gateway.store.pools import PoolRow

MAX_LABELS = 32
MAX_COUNT = 4
MAX_FINISH_SECONDS = 366 * 24 * 3600
REQUEST_FIELDS = frozenset({"variant", "pool", "parameters", "labels", "priority", "deadline", "preview_interval"})
"""What a request may set of a generation."""


def check_generation(generation: generation_pb2.Generation) -> None:
    """Raises InvalidRequest naming every field that is wrong."""
    problems = list(output_only.violations(generation, REQUEST_FIELDS, "generation"))
    if not generation.variant:
        problems.append(Violation("generation.variant", "variant is missing: name one, such as t2v-a14b."))
    if len(generation.labels) > MAX_LABELS:
        text = f"labels has {len(generation.labels)} entries: use at most {MAX_LABELS}."
        problems.append(Violation("generation.labels", text))
    for key, value in generation.labels.items():
        if not 1 <= len(key) <= 63 or len(value) > 255 or "\0" in key + value:  # which PostgreSQL does not take
            text = f"label {key!r} is refused: keys have 1 to 63 characters, values at most 255, none NUL."
            problems.append(Violation("generation.labels", text))
    problems += _wrong_terms(generation)
    if problems:
        raise InvalidRequest(" ".join(p.description for p in problems), violations=problems)
    if generation.pool:
        check_pool(generation.pool, "generation.pool")


def _wrong_terms(generation: generation_pb2.Generation) -> Iterator[Violation]:
    if generation.priority not in {0, *Priority}:
        text = f"priority is {generation.priority}: use LOW (1), NORMAL (2) or HIGH (3)."
        yield Violation("generation.priority", text)
    if not 0 <= generation.preview_interval <= MAX_INTERVAL:
        text = f"preview_interval is {generation.preview_interval}: use 1 to {MAX_INTERVAL} steps, or 0 for none."
        yield Violation("generation.preview_interval", text)


def check_request_id(request_id: str) -> None:
    """Raises InvalidRequest for one that no store could find again."""
    if len(request_id) > 128 or "\0" in request_id:
        text = f"request_id has {len(request_id)} characters: use 1 to 128, none of them NUL."
        raise InvalidRequest(text, field="request_id")


def check_call(request: generation_pb2.CreateGenerationRequest) -> None:
    """Raises InvalidRequest for what a call says beside its request id and the generation that it wants."""
    if request.reuse and not request.generation.parameters.HasField("seed"):
        text = "reuse is set, but no seed is given: a drawn one has no earlier video. Give the seed of that video."
        raise InvalidRequest(text, field="reuse")
    if not 0 <= request.count <= MAX_COUNT:
        raise InvalidRequest(f"count is {request.count}: use 1 to {MAX_COUNT}, or 0 for 1.", field="count")
    if not request.HasField("finish_within"):
        return
    if request.generation.HasField("deadline"):
        text = "finish_within and generation.deadline are both given: use one of them."
        raise InvalidRequest(text, field="finish_within")
    seconds = request.finish_within.ToMilliseconds() / 1000
    if not 0 < seconds <= MAX_FINISH_SECONDS:
        text = f"finish_within is {seconds:g} s: use more than 0, and at most {MAX_FINISH_SECONDS} s."
        raise InvalidRequest(text, field="finish_within")


def too_long_texts(too_long: dict[str, int]) -> InvalidRequest:
    """What is told of texts, by field, that have so many tokens."""
    what_to_do = f"use at most {MAX_PROMPT_TOKENS}, or let it be cut by cut_prompt"
    violations = [
        Violation(f"parameters.{field}", f"{field} has {count} tokens, the end token counted: {what_to_do}.")
        for field, count in too_long.items()
    ]
    return InvalidRequest(" ".join(v.description for v in violations), violations=violations)


def check_profile(pool: PoolRow, variant: Variant, parameters: Parameters, distilled: frozenset[int]) -> None:
    """Raises FailedPrecondition unless weights are distilled, by themselves or by adapters, for TURBO and it alone."""
    turbo = parameters.profile is Profile.TURBO
    if pool.distilled and distilled:
        text = f"loras has an adapter for profile TURBO, but the weights of {pool.name} are distilled already"
        raise FailedPrecondition(f"{text}: leave it out.", reason=Reason.PROFILE_NOT_SERVED)
    if turbo and not pool.distilled and len(distilled) < variant.experts:
        what = f"the weights of {pool.name} are not distilled: four steps would give noise"
        if distilled:
            expert = "low-noise" if 0 in distilled else "high-noise"
            what = f"loras distils one expert alone, not the {expert} one"
        text = (
            f"profile is TURBO, but {what}. Name a pool with distilled weights, add adapters for TURBO for all experts"
        )
        raise FailedPrecondition(f"{text}, or use QUALITY.", reason=Reason.PROFILE_NOT_SERVED)
    if not turbo and (pool.distilled or distilled):
        what = f"the weights of {pool.name} are distilled" if pool.distilled else "loras has an adapter for TURBO"
        what_to_do = "name another pool" if pool.distilled else "leave it out"
        text = f"profile is QUALITY, but {what}: guidance blurs with it. Use TURBO, or {what_to_do}."
        raise FailedPrecondition(text, reason=Reason.PROFILE_NOT_SERVED)
