"""Admission: a request becomes a durable generation, or is refused with every field that is wrong."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace

from wan22.errors import FailedPrecondition, InvalidRequest, NotFound, Reason, Wan22Error
from wan22.identifiers import uuid7
from wan22.loras import MAX_LORAS
from wan22.memory_model import Holdings
from wan22.parameter_messages import from_message, to_message
from wan22.parameters import MAX_SEED, Parameters, RequestedParameters, Size, resolve
from wan22.v1 import generation_pb2
from wan22.variants import VARIANTS, Variant
from wan22_gateway import lifecycle, request_rules, reuse
from wan22_gateway.adapters import Adapters
from wan22_gateway.cost import CostModel, work
from wan22_gateway.generation_messages import generation_message
from wan22_gateway.intake import Intake
from wan22_gateway.memory import Fit, fit, roomiest
from wan22_gateway.prompt_hook import PromptHook
from wan22_gateway.prompt_length import PromptLengths
from wan22_gateway.queue_view import view
from wan22_gateway.retention import Retention
from wan22_gateway.scheduling.shares import Priority
from wan22_gateway.store import generations, media, pools, webhooks
from wan22_gateway.store.database import Database, Transaction
from wan22_gateway.store.generations import NewGeneration
from wan22_gateway.store.pools import PoolRow
from wan22_gateway.store.recall import Recall
from wan22_gateway.webhooks.addresses import check_url

REMEMBERED_PLACES, REMEMBERED_SECONDS = 256, 5.0


@dataclass(frozen=True)
class Turn:
    """Where a request would stand, if it were queued now."""

    position: int
    start_time: int | None
    """Its predicted start; None while that cannot be said."""
    earliest_start: int
    """Now, where the pool may still get more workers; its predicted start where it has all that it may have."""


@dataclass(frozen=True)
class Admitted:
    """A request that would be taken: where it would run and what it would cost."""

    variant: Variant
    pool: PoolRow
    parameters: Parameters
    cut_texts: dict[str, int]
    """Tokens that each text had which is cut, by field."""
    fit: Fit | None
    """How it fits into memory; None while that is unknown."""
    predicted_seconds: float
    priority: Priority
    deadline: int | None
    start_by_time: int | None
    """The latest start that makes the deadline; the deadline itself while too little is known of the pool's speed."""


@dataclass(frozen=True)
class _Place:
    """What is known of the pool that would take a request."""

    pool: PoolRow
    cost: CostModel
    roomiest: Holdings | None


class Admission:
    """Checks requests and puts them in the queue."""

    def __init__(
        self,
        database: Database,
        prompts: PromptLengths,
        adapters: Adapters,
        intake: Intake,
        retention: Retention,
        hook: PromptHook | None = None,
    ) -> None:
        self._hook = hook
        self._database = database
        self._retention = retention
        self._prompts = prompts
        self._adapters = adapters
        self._intake = intake
        self._places: Recall[_Place] = Recall(database, REMEMBERED_PLACES, REMEMBERED_SECONDS)

    async def create(self, tenant: str, request: generation_pb2.CreateGenerationRequest) -> generation_pb2.Generation:
        """Returns the (first) generation, which is durable; that of the first call when a request id repeats.

        Raises InvalidRequest, NotFound (VARIANT_NOT_SERVED), AlreadyExists, ResourceExhausted (QUEUE_FULL),
        FailedPrecondition (QUARANTINED and others).
        """
        request_rules.check_request_id(request.request_id)
        asked = generation_pb2.CreateGenerationRequest()
        asked.CopyFrom(request)
        asked.ClearField("request_id")
        digest = hashlib.sha256(asked.SerializeToString(deterministic=True)).hexdigest()
        if self._hook is not None and request.request_id:  # which is not asked twice about one request
            known = await self._database.read(_known, tenant, request.request_id, digest)
            if known is not None:
                return known
        try:
            new = await self._new(tenant, request, digest)
        except Wan22Error:
            # What the first call has made is told whatever has changed since, or was wrong with this one.
            known = await self._database.read(_known, tenant, request.request_id, digest)
            if known is None:
                raise
            return known
        return await self._intake.add(new, reusing=request.reuse)

    async def _new(
        self, tenant: str, request: generation_pb2.CreateGenerationRequest, digest: str
    ) -> Sequence[NewGeneration]:
        request_rules.check_call(request)
        wanted = generation_pb2.Generation()
        wanted.CopyFrom(request.generation)
        if request.HasField("finish_within"):
            now = await self._database.read(lambda tx: tx.now)
            wanted.deadline.FromMicroseconds(now + request.finish_within.ToMicroseconds())
        keep_for = self._retention.keep_for(request.keep_for if request.HasField("keep_for") else None)
        if request.webhook_url:
            check_url(request.webhook_url, "webhook_url")
            await self._database.read(webhooks.check_secret, tenant)
        admitted = await self.check(tenant, wanted)
        asked = None if self._hook is None else await self._hook.ask(tenant, wanted)
        if asked is not None:
            admitted = await self.check(tenant, wanted)
        new = _generations(tenant, request, digest, admitted, keep_for=keep_for, asked=asked)
        if not request.reuse or None in await self._database.read(reuse.answers, new):
            if admitted.deadline is not None:
                _check_deadline(admitted, await self.turn(tenant, admitted))
            if admitted.fit is not None and not admitted.fit.fits:
                raise _does_not_fit(admitted.pool, admitted.fit)
        return new

    async def check(self, tenant: str, generation: generation_pb2.Generation) -> Admitted:
        """Resolves a request without queueing it. Raises InvalidRequest, NotFound or FailedPrecondition."""
        request_rules.check_generation(generation)
        place = await self._place(generation.pool, generation.variant)
        pool = place.pool
        variant = VARIANTS[pool.variant]
        requested = from_message(generation.parameters)
        if len(requested.loras) > MAX_LORAS:
            text = f"loras has {len(requested.loras)} adapters: use at most {MAX_LORAS}."
            raise InvalidRequest(text, field="parameters.loras")
        found = await self._adapters.find(variant, requested.loras)
        if found.loras:
            requested = replace(requested, loras=found.loras)
        image_size = await self._image_size(tenant, requested)
        parameters = resolve(
            variant, requested, image_size=image_size, draw_seed=lambda: secrets.randbits(MAX_SEED.bit_length())
        )
        texts = {"prompt": parameters.prompt, "negative_prompt": parameters.negative_prompt}
        too_long = await self._prompts.too_long(pool.model_version, texts)
        if too_long and not parameters.cut_prompt:
            raise request_rules.too_long_texts(too_long)
        request_rules.check_profile(pool, variant, parameters, found.distilled)
        wanted = work(variant, parameters)
        seconds = place.cost.seconds(wanted)
        fitting = None if place.roomiest is None else fit(place.roomiest, variant, parameters, found.device_bytes)
        deadline = None
        if generation.HasField("deadline"):
            deadline = lifecycle.microseconds(generation.deadline, "generation.deadline")
        start_by = None if deadline is None else deadline - round(place.cost.at_least(wanted) * 1_000_000)
        priority = Priority(generation.priority or Priority.NORMAL)
        return Admitted(variant, pool, parameters, too_long, fitting, seconds, priority, deadline, start_by)

    async def turn(self, tenant: str, admitted: Admitted) -> Turn:
        """Where the request would stand, if it were queued now."""
        return await self._database.read(_turn, admitted.pool, tenant, admitted.priority)

    async def _place(self, pool: str, variant: str) -> _Place:
        return await self._places.get((pool, variant), ["pools", "speeds", "workers"], _find_place, pool, variant)

    async def _image_size(self, tenant: str, requested: RequestedParameters) -> Size | None:
        size = None
        for field, name in (("last_image", requested.last_image), ("image", requested.image)):
            media_id = (name or "").removeprefix("media/")
            if len(media_id) != 64 or "\0" in media_id:  # absent, or malformed: `resolve` refuses it with the others
                continue
            try:
                row = await self._database.read(media.get, tenant, media_id)
            except NotFound as error:
                raise InvalidRequest(error.message, field=f"parameters.{field}") from None
            size = (row.width, row.height)
        return size if requested.image else None


def _generations(
    tenant: str,
    request: generation_pb2.CreateGenerationRequest,
    digest: str,
    admitted: Admitted,
    *,
    keep_for: int | None,
    asked: generation_pb2.AskedTexts | None,
) -> list[NewGeneration]:
    """As many as the request asks for, with the seeds that follow. Raises InvalidRequest for one beyond all seeds."""
    count = request.count or 1
    if admitted.parameters.seed + count - 1 > MAX_SEED:
        text = f"seed is {admitted.parameters.seed}: with count {count} use at most {MAX_SEED - count + 1}."
        raise InvalidRequest(text, field="generation.parameters.seed")
    ids = [uuid7() for _ in range(count)]
    first = admitted.parameters
    seeded = [first, *(replace(first, seed=first.seed + index) for index in range(1, count))]
    return [
        NewGeneration(
            id=generation,
            tenant=tenant,
            request_id="" if index else request.request_id,
            request_digest=digest,
            variant=admitted.variant.name,
            pool=admitted.pool.name,
            model_version=admitted.pool.model_version,
            parameters=to_message(parameters).SerializeToString(),
            labels=dict(request.generation.labels),
            cut_texts=admitted.cut_texts,
            siblings=ids if count > 1 else [],
            predicted_seconds=admitted.predicted_seconds,
            priority=admitted.priority,
            deadline=admitted.deadline,
            start_by_time=admitted.start_by_time,
            keep_for=keep_for,
            inputs_digest=reuse.inputs_digest(admitted.variant.name, admitted.pool.model_version, parameters),
            webhook_url=request.webhook_url or None,
            asked_texts=None if asked is None else asked.SerializeToString(),
            preview_interval=request.generation.preview_interval or None,
            media=_media_ids(parameters),
        )
        for index, (generation, parameters) in enumerate(zip(ids, seeded, strict=True))
    ]


def _known(tx: Transaction, tenant: str, request_id: str, digest: str) -> generation_pb2.Generation | None:
    """What an earlier call with this request id has made."""
    known = generations.find_request(tx, tenant, request_id, digest) if request_id else None
    return None if known is None else generation_message(tx, generations.get(tx, tenant, known))


def _media_ids(parameters: Parameters) -> tuple[str, ...]:
    names = {parameters.image, parameters.last_image} - {None}
    return tuple(sorted(name.removeprefix("media/") for name in names if name))


def _turn(tx: Transaction, pool: PoolRow, tenant: str, priority: Priority) -> Turn:
    """The turn that one more generation would have."""
    queue = view(tx, pool.name)
    place = queue.last_place(tenant, priority, tx, pool.name)
    start = queue.time_of(place)
    if start is None:
        return Turn(place.position, None, tx.now)
    start = max(tx.now, start)
    return Turn(place.position, start, start if queue.plan.workers >= pool.max_workers else tx.now)


def _check_deadline(admitted: Admitted, turn: Turn) -> None:
    """Refuses what cannot end in time, as far as can be said now."""
    if admitted.start_by_time is None or admitted.deadline is None:
        return
    start = turn.earliest_start
    if start > admitted.start_by_time:
        at, deadline = (lifecycle.timestamp(time).ToJsonString() for time in (start, admitted.deadline))
        text = f"The deadline is {deadline}, but it would start at {at} and is predicted to take "
        text += f"{admitted.predicted_seconds:.0f} s: use a later deadline, a higher priority, or less work."
        raise FailedPrecondition(text, reason=Reason.DEADLINE_MISSED, metadata={"predicted_start_time": at})


def _does_not_fit(pool: PoolRow, found: Fit) -> FailedPrecondition:
    needed, limit = found.peak_bytes >> 20, found.limit >> 20
    text = f"It would take about {needed} MiB of device memory, and no worker of {pool.name} has more than {limit} MiB"
    return FailedPrecondition(f"{text}: {found.advice}.", reason=Reason.OUT_OF_MEMORY)


def _find_place(tx: Transaction, pool: str, variant: str) -> _Place:
    return tx.once(("place", pool, variant), lambda: _look_for_place(tx, pool, variant))


def _look_for_place(tx: Transaction, pool: str, variant: str) -> _Place:
    row = _find_pool(tx, pool, variant)
    return _Place(row, CostModel.from_json(row.cost_model), roomiest(tx, row.name))


def _find_pool(tx: Transaction, name: str, variant: str) -> PoolRow:
    if name:
        pool = pools.get(tx, name)
        if pool.variant != variant:
            text = f"{pool.name} serves {pool.variant}, not {variant}: name another pool, or none."
            raise InvalidRequest(text, field="generation.pool")
        if pool.max_workers > 0:
            return pool
    serving = pools.serving(tx)
    if variant not in serving:
        served = ", ".join(sorted(serving)) or "none"
        text = f"Variant {variant!r} is not served here; served are: {served}."
        raise NotFound(text, reason=Reason.VARIANT_NOT_SERVED, metadata={"served": served})
    return serving[variant]
