"""Admission: a request becomes a durable generation, or is refused with every field that is wrong."""

from __future__ import annotations

import hashlib
import secrets
import uuid
from dataclasses import dataclass

from wan22.errors import InvalidRequest, NotFound, Reason, ResourceExhausted, Violation
from wan22.names import check_pool
from wan22.parameter_messages import from_message, to_message
from wan22.parameters import MAX_SEED, Parameters, RequestedParameters, Size, resolve
from wan22.v1 import generation_pb2
from wan22.variants import VARIANTS, Variant
from wan22_gateway import cost
from wan22_gateway.prompt_length import PromptLengths
from wan22_gateway.store import generations, objects, pools
from wan22_gateway.store.database import Database, Transaction
from wan22_gateway.store.generations import NewGeneration
from wan22_gateway.store.pools import PoolRow

MAX_LABELS = 32
REQUEST_FIELDS = frozenset({"variant", "pool", "parameters", "labels"})


@dataclass(frozen=True)
class Admitted:
    """A request that would be taken: where it would run and what it would cost."""

    variant: Variant
    pool: PoolRow
    parameters: Parameters
    work_units: float
    predicted_seconds: float


class Admission:
    """Checks requests and puts them in the queue."""

    def __init__(self, database: Database, prompts: PromptLengths, queue_limit: int) -> None:
        self._database = database
        self._prompts = prompts
        self._queue_limit = queue_limit

    async def create(self, tenant: str, request: generation_pb2.CreateGenerationRequest) -> str:
        """Returns the id of the generation, which is durable; the one of the first call when the request id repeats.

        Raises InvalidRequest, NotFound (VARIANT_NOT_SERVED), AlreadyExists, ResourceExhausted (QUEUE_FULL).
        """
        digest = hashlib.sha256(request.generation.SerializeToString(deterministic=True)).hexdigest()
        if len(request.request_id) > 128:
            text = f"request_id has {len(request.request_id)} characters: use 1 to 128."
            raise InvalidRequest(text, field="request_id")
        if request.request_id:
            known = await self._database.read(generations.find_request, tenant, request.request_id, digest)
            if known is not None:
                return known
        admitted = await self.check(tenant, request.generation)
        new = NewGeneration(
            id=str(uuid.uuid4()),
            tenant=tenant,
            request_id=request.request_id,
            request_digest=digest,
            variant=admitted.variant.name,
            pool=admitted.pool.name,
            model_version=admitted.pool.model_version,
            parameters=to_message(admitted.parameters).SerializeToString(),
            labels=dict(request.generation.labels),
            predicted_seconds=admitted.predicted_seconds,
            work_units=admitted.work_units,
        )
        return await self._database.write(self._insert, new)

    async def check(self, tenant: str, generation: generation_pb2.Generation) -> Admitted:
        """Resolves a request without queueing it. Raises InvalidRequest or NotFound."""
        _check_fields(generation)
        pool = await self._database.read(_find_pool, generation)
        variant = VARIANTS[pool.variant]
        requested = from_message(generation.parameters)
        image_size = await self._image_size(tenant, requested)
        parameters = resolve(
            variant, requested, image_size=image_size, draw_seed=lambda: secrets.randbelow(MAX_SEED + 1)
        )
        texts = {"prompt": parameters.prompt, "negative_prompt": parameters.negative_prompt}
        too_long = await self._prompts.violations(pool.model_version, texts)
        if too_long:
            raise InvalidRequest(" ".join(v.description for v in too_long), violations=too_long)
        units = cost.work_units(variant, parameters)
        seconds = cost.predicted_seconds(units, pool.seconds_per_unit)
        return Admitted(variant, pool, parameters, units, seconds)

    async def _image_size(self, tenant: str, requested: RequestedParameters) -> Size | None:
        size = None
        for field, name in (("last_image", requested.last_image), ("image", requested.image)):
            media_id = (name or "").removeprefix("media/")
            if len(media_id) != 64:  # absent, or malformed, which `resolve` refuses with the other fields
                continue
            try:
                size = await self._database.read(objects.media_size, tenant, media_id)
            except NotFound as error:
                raise InvalidRequest(error.message, field=f"parameters.{field}") from None
        return size if requested.image else None

    def _insert(self, tx: Transaction, new: NewGeneration) -> str:
        if new.request_id:  # looked up again, now that nobody else writes
            known = generations.find_request(tx, new.tenant, new.request_id, new.request_digest)
            if known is not None:
                return known
        queued = generations.count_queued(tx)
        if queued >= self._queue_limit:
            text = f"The queue is full: {queued} generations wait, the limit is {self._queue_limit}. Try again later."
            raise ResourceExhausted(text, reason=Reason.QUEUE_FULL, retry_after=max(1.0, new.predicted_seconds))
        generations.insert_generation(tx, new)
        return new.id


def _check_fields(generation: generation_pb2.Generation) -> None:
    problems = []
    for descriptor, _ in generation.ListFields():
        if descriptor.name not in REQUEST_FIELDS:
            text = f"{descriptor.name} is set by the gateway alone: leave it out."
            problems.append(Violation(f"generation.{descriptor.name}", text))
    if not generation.variant:
        problems.append(Violation("generation.variant", "variant is missing: name one, such as t2v-a14b."))
    if len(generation.labels) > MAX_LABELS:
        text = f"labels has {len(generation.labels)} entries: use at most {MAX_LABELS}."
        problems.append(Violation("generation.labels", text))
    for key, value in generation.labels.items():
        if not 1 <= len(key) <= 63 or len(value) > 255 or '"' in key:
            text = f"label {key!r} is refused: keys have 1 to 63 characters without quotes, values at most 255."
            problems.append(Violation("generation.labels", text))
    if problems:
        raise InvalidRequest(" ".join(p.description for p in problems), violations=problems)
    if generation.pool:
        check_pool(generation.pool, "generation.pool")


def _find_pool(tx: Transaction, generation: generation_pb2.Generation) -> PoolRow:
    if generation.pool:
        pool = pools.get(tx, generation.pool)
        if pool.variant != generation.variant:
            text = f"{pool.name} serves {pool.variant}, not {generation.variant}: name another pool, or none."
            raise InvalidRequest(text, field="generation.pool")
        if pool.max_workers > 0:
            return pool
    serving = pools.serving(tx)
    if generation.variant not in serving:
        served = ", ".join(sorted(serving)) or "none"
        text = f"Variant {generation.variant!r} is not served here; served are: {served}."
        raise NotFound(text, reason=Reason.VARIANT_NOT_SERVED, metadata={"served": served})
    return serving[generation.variant]
