"""GenerationService: translates between messages and the modules that hold the rules."""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator
from typing import Any

import grpc
from google.protobuf.empty_pb2 import Empty
from sqlalchemy import select

from wan22 import names
from wan22.errors import InvalidRequest, OutOfRange
from wan22.memory_messages import economy_message
from wan22.parameter_messages import to_message
from wan22.v1 import generation_pb2, generation_pb2_grpc
from wan22_gateway import lifecycle, page_token, videos
from wan22_gateway.admission import Admission
from wan22_gateway.download_urls import DownloadUrls
from wan22_gateway.generation_messages import generation_message
from wan22_gateway.identity.caller import caller
from wan22_gateway.lifecycle import State
from wan22_gateway.media import MediaLibrary
from wan22_gateway.places import Places
from wan22_gateway.results import Results, recipe_key
from wan22_gateway.store import generations, pools
from wan22_gateway.store.database import Database, Transaction
from wan22_gateway.store.generations import GenerationRow
from wan22_gateway.store.recall import Recall
from wan22_gateway.store.schema import identity
from wan22_gateway.usage_messages import quota_message, usage_message
from wan22_gateway.variant_messages import variant_message
from wan22_gateway.watch import watch

DEFAULT_PAGE, MAX_PAGE = 100, 1000
SHOWN, SHOWN_SECONDS = 4096, 1.0
"""Generations that are shown again without being read, and for how long what is predicted of them is."""
Context = grpc.aio.ServicerContext[Any, Any] | None
"""None where the HTTP port calls: nothing here may need it."""


class GenerationServicer(generation_pb2_grpc.GenerationServiceServicer):
    """Validates, queues and streams back generations; it never touches a GPU."""

    def __init__(
        self,
        database: Database,
        admission: Admission,
        results: Results,
        media: MediaLibrary,
        urls: DownloadUrls,
        places: Places,
    ) -> None:
        self._database = database
        self._admission = admission
        self._results = results
        self._media = media
        self._urls = urls
        self._places = places
        self._variants: Recall[generation_pb2.ListVariantsResponse] = Recall(database, 1, SHOWN_SECONDS)
        self._shown: Recall[generation_pb2.Generation] = Recall(database, SHOWN, SHOWN_SECONDS)

    async def CreateGeneration(
        self, request: generation_pb2.CreateGenerationRequest, context: Context
    ) -> generation_pb2.Generation:
        """Admits; answers after the commit."""
        return await self._admission.create(caller().tenant, request)

    async def EstimateGeneration(
        self, request: generation_pb2.EstimateGenerationRequest, context: Context
    ) -> generation_pb2.Estimate:
        """Admits without queueing."""
        admitted = await self._admission.check(caller().tenant, request.generation)
        turn = await self._admission.turn(caller().tenant, admitted)
        pool = admitted.pool
        would_be = generation_pb2.Generation(
            variant=admitted.variant.name,
            pool=pool.name,
            model_version=pool.model_version,
            parameters=to_message(admitted.parameters),
            labels=request.generation.labels,
            cut_texts=admitted.cut_texts,
            priority=generation_pb2.Generation.Priority.ValueType(admitted.priority),
            preview_interval=request.generation.preview_interval,
        )
        if admitted.deadline is not None:
            would_be.deadline.CopyFrom(lifecycle.timestamp(admitted.deadline))
        estimate = generation_pb2.Estimate(
            generation=would_be,
            predicted_seconds=admitted.predicted_seconds,
            queue_position=turn.position,
        )
        if (start := turn.start_time) is not None:
            estimate.predicted_start_time.CopyFrom(lifecycle.timestamp(start))
        if (fit := admitted.fit) is not None:
            estimate.fits, estimate.peak_bytes, estimate.advice = fit.fits, fit.peak_bytes, fit.advice
            estimate.economy.CopyFrom(economy_message(fit.economy))
        return estimate

    async def GetGeneration(
        self, request: generation_pb2.GetGenerationRequest, context: Context
    ) -> generation_pb2.Generation:
        """Reads one row."""
        return await self._get(_id(request.name))

    async def ListGenerations(
        self, request: generation_pb2.ListGenerationsRequest, context: Context
    ) -> generation_pb2.ListGenerationsResponse:
        """Reads a page of rows."""
        if not 0 <= request.page_size <= MAX_PAGE:
            text = f"page_size is {request.page_size}: use 1 to {MAX_PAGE}, or 0 for {DEFAULT_PAGE}."
            raise InvalidRequest(text, field="page_size")
        size = request.page_size or DEFAULT_PAGE
        tenant = caller().tenant
        states = [_state(value) for value in request.states]

        def read(tx: Transaction) -> generation_pb2.ListGenerationsResponse:
            key = tx.execute(select(identity.c.page_key)).scalar_one()
            rows = generations.page(
                tx,
                tenant,
                states=states,
                variant=request.variant,
                wanted_labels=dict(request.labels),
                before=page_token.decode(key, tenant, request, int),
                limit=size + 1,
            )
            response = generation_pb2.ListGenerationsResponse()
            response.generations.extend(generation_message(tx, row) for row in rows[:size])
            if len(rows) > size:
                response.next_page_token = page_token.encode(key, tenant, rows[size - 1].position, request)
            return response

        return await self._database.read(read)

    async def WatchGeneration(
        self, request: generation_pb2.WatchGenerationRequest, context: Context
    ) -> AsyncIterator[generation_pb2.GenerationEvent]:
        """Streams events until the final one."""
        async for event in watch(
            self._database, self._places, caller().tenant, _id(request.name), request.after_sequence
        ):
            yield event

    async def CancelGeneration(
        self, request: generation_pb2.CancelGenerationRequest, context: Context
    ) -> generation_pb2.Generation:
        """Records the wish; the attempt's runner carries it out."""
        generation, tenant = _id(request.name), caller().tenant

        def cancel(tx: Transaction) -> None:
            generations.get(tx, tenant, generation)
            lifecycle.request_cancel(tx, generation)

        await self._database.write(cancel)
        return await self._get(generation)

    async def DeleteGeneration(self, request: generation_pb2.DeleteGenerationRequest, context: Context) -> Empty:
        """Removes the rows; the video's object goes a moment later."""
        generation, tenant = _id(request.name), caller().tenant
        if request.force:
            await self.CancelGeneration(generation_pb2.CancelGenerationRequest(name=request.name), context)
            async for _ in watch(self._database, self._places, tenant, generation, 0):
                pass  # until its final state
        await self._database.write(lambda tx: generations.remove(tx, generations.get(tx, tenant, generation)))
        return Empty()

    async def DownloadVideo(
        self, request: generation_pb2.DownloadVideoRequest, context: Context
    ) -> AsyncIterator[generation_pb2.VideoChunk]:
        """Streams the stored MP4."""
        row = await self._succeeded(request.name)
        if not 0 <= request.offset <= row.video_size:
            raise OutOfRange(f"offset is {request.offset}: the video has {row.video_size} bytes.")
        offset = request.offset
        async for data in self._results.read(row.video_key, row.video_size, offset):
            yield generation_pb2.VideoChunk(offset=offset, data=data, crc32=zlib.crc32(data))
            offset += len(data)

    async def CreateDownloadUrl(
        self, request: generation_pb2.CreateDownloadUrlRequest, context: Context
    ) -> generation_pb2.DownloadUrl:
        """Has the URL made."""
        valid_for = request.valid_for if request.HasField("valid_for") else None
        return await self._urls.create(caller().tenant, _id(request.name), valid_for)

    async def GetRecipe(self, request: generation_pb2.GetRecipeRequest, context: Context) -> generation_pb2.Recipe:
        """Reads what lies beside the video."""
        row = await self._succeeded(request.name)
        key = recipe_key(row.video_key)
        size = await self._results.size(key)
        return generation_pb2.Recipe(json=b"".join([data async for data in self._results.read(key, size)]).decode())

    async def UploadMedia(
        self, request: AsyncIterator[generation_pb2.UploadMediaRequest], context: Context
    ) -> generation_pb2.Media:
        """Hands the bytes to the media library."""
        stored = await self._media.add(caller().tenant, (part.data async for part in request))
        return generation_pb2.Media(name=f"media/{stored.id}", width=stored.width, height=stored.height)

    async def GetQuota(self, request: generation_pb2.GetQuotaRequest, context: Context) -> generation_pb2.Quota:
        """Reads the caller's limits, and what it has."""
        return await self._database.read(quota_message, caller().tenant)

    async def ListUsage(
        self, request: generation_pb2.ListUsageRequest, context: Context
    ) -> generation_pb2.ListUsageResponse:
        """Reads the caller's days."""
        return await self._database.read(usage_message, caller().tenant, request)

    async def ListVariants(
        self, request: generation_pb2.ListVariantsRequest, context: Context
    ) -> generation_pb2.ListVariantsResponse:
        """Reads the pools that serve."""
        return await self._variants.get("", ["pools", "workers"], _variants)

    async def _succeeded(self, name: str) -> GenerationRow:
        return await self._database.read(videos.get, caller().tenant, _id(name))

    async def _get(self, generation: str) -> generation_pb2.Generation:
        tenant = caller().tenant
        topics = [f"generation/{generation}", "queue"]
        return await self._shown.get((tenant, generation), topics, _show, tenant, generation)


def _show(tx: Transaction, tenant: str, generation: str) -> generation_pb2.Generation:
    return generation_message(tx, generations.get(tx, tenant, generation))


def _variants(tx: Transaction) -> generation_pb2.ListVariantsResponse:
    serving = sorted(pools.serving(tx).items())
    return generation_pb2.ListVariantsResponse(variants=[variant_message(tx, pool) for _, pool in serving])


def _state(value: int) -> State:
    try:
        return State(generation_pb2.Generation.State.Name(generation_pb2.Generation.State.ValueType(value)))
    except ValueError:
        known = ", ".join(f"{state} ({generation_pb2.Generation.State.Value(state)})" for state in State)
        raise InvalidRequest(f"states has {value}: use some of {known}.", field="states") from None


def _id(name: str) -> str:
    return names.check_generation(name).removeprefix("generations/")
