"""A gateway without a disk or workers: GenerationService in memory, whose generations and connections a test drives."""

from __future__ import annotations

import asyncio
import hashlib
import uuid
import zlib
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field, replace
from typing import Any

from google.protobuf.empty_pb2 import Empty

from wan22.errors import AlreadyExists, FailedPrecondition, InvalidRequest, NotFound, OutOfRange, Reason, Unavailable
from wan22.loras import RequestedLora
from wan22.parameter_messages import from_message, to_message
from wan22.parameters import resolve
from wan22.recipe import Recipe
from wan22.solvers import Solver
from wan22.v1 import generation_pb2
from wan22.v1.generation_pb2 import (
    AttemptStart,
    Generation,
    GenerationEvent,
    Preview,
    Progress,
    QueueSnapshot,
    StateChange,
)
from wan22.v1.generation_pb2_grpc import GenerationServiceServicer
from wan22.variants import VARIANTS

FINAL_STATES = (Generation.SUCCEEDED, Generation.FAILED, Generation.CANCELLED)


@dataclass
class Record:
    """One generation with its history and video."""

    generation: Generation
    events: list[GenerationEvent] = field(default_factory=list)
    video: bytes = b""
    preview: Preview | None = None
    """The newest, until the final state."""
    shown: Preview | None = None
    """The last that a watcher was sent."""
    grown: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def append(self, event: GenerationEvent) -> None:
        """Adds the next numbered event and applies it to the generation."""
        event.sequence = len(self.events) + 1
        event.event_time.GetCurrentTime()
        self.generation.last_sequence = event.sequence
        if event.HasField("state_change"):
            self.generation.state = event.state_change.state
            self.generation.ClearField("progress")
            self.preview = None if self.generation.state in FINAL_STATES else self.preview
            for part in ("error", "video"):
                if event.state_change.HasField(part):
                    getattr(self.generation, part).CopyFrom(getattr(event.state_change, part))
        elif event.HasField("progress"):
            self.generation.progress.CopyFrom(event.progress)
        elif event.HasField("attempt_start"):
            self.generation.attempt_count = event.attempt_start.attempt
        async with self.grown:
            self.events.append(event)
            self.grown.notify_all()

    async def beyond(self, sequence: int, preview: Preview | None) -> None:
        """Returns once there is an event after this one, or another preview."""
        async with self.grown:
            await self.grown.wait_for(lambda: len(self.events) > sequence or self.preview is not preview)

    async def show(self, preview: Preview) -> None:
        """Makes a preview the newest, and returns once a watcher was sent it."""
        async with self.grown:
            self.preview = preview
            self.grown.notify_all()
            await self.grown.wait_for(lambda: self.shown is preview)


class MemoryGateway(GenerationServiceServicer):
    """Keeps the contract of generation.proto for one tenant and any variant.

    Nothing runs by itself: `worker` says what happens to a new generation, `succeed` is a good one.
    `break_streams` and `unavailable_answers` make faults.
    """

    def __init__(self) -> None:
        self.records: dict[str, Record] = {}
        self.request_ids: dict[str, tuple[generation_pb2.CreateGenerationRequest, str]] = {}
        self.media: dict[str, bytes] = {}
        self.break_streams: deque[int] = deque()
        """How many messages each of the next server streams sends before it breaks."""
        self.unavailable_answers: deque[str] = deque()
        """Names of methods that do their work once and then lose the answer."""
        self.metadata: list[tuple[str, str]] = []
        """What the last unary call carried."""
        self.worker: Callable[[str], Coroutine[Any, Any, None]] | None = None
        """What happens to each new generation, by its name; nothing at first."""
        self._running: set[asyncio.Task[None]] = set()

    async def succeed(self, name: str, video: bytes, num_steps: int = 4) -> None:
        """Plays a worker that runs a generation to its end."""
        record = self.records[name]
        await record.append(GenerationEvent(state_change=StateChange(state=Generation.RUNNING)))
        await record.append(GenerationEvent(attempt_start=AttemptStart(attempt=1, worker="workers/memory-0")))
        await record.append(GenerationEvent(progress=Progress(stage=Progress.ENCODING_TEXT)))
        for step in range(num_steps + 1):
            progress = Progress(stage=Progress.DENOISING, step=step, num_steps=num_steps)
            await record.append(GenerationEvent(progress=progress))
        await record.append(GenerationEvent(progress=Progress(stage=Progress.DECODING)))
        record.video = video
        result = generation_pb2.Video(size_bytes=len(video), digest=f"sha256:{hashlib.sha256(video).hexdigest()}")
        await record.append(GenerationEvent(state_change=StateChange(state=Generation.SUCCEEDED, video=result)))

    async def CreateGeneration(self, request: generation_pb2.CreateGenerationRequest, context: Any) -> Generation:
        """Accepts as the gateway does, without a bound on the queue."""
        self._note(context)
        if request.request_id in self.request_ids:
            asked, name = self.request_ids[request.request_id]
            if asked != request:
                raise AlreadyExists("request_id was used with another request.", reason=Reason.REQUEST_ID_REUSED)
            return self.records[name].generation
        names = [f"generations/{uuid.uuid4()}" for _ in range(request.count or 1)]
        for index, name in enumerate(names):
            generation = self._resolve(request.generation)
            generation.name = name
            generation.parameters.seed += index
            generation.siblings.extend(names if len(names) > 1 else [])
            if request.HasField("keep_for"):
                generation.keep_for.CopyFrom(request.keep_for)
            record = self.records[name] = Record(generation)
            await record.append(GenerationEvent(state_change=StateChange(state=Generation.QUEUED)))
            if self.worker:
                task = asyncio.create_task(self.worker(name))
                self._running.add(task)
                task.add_done_callback(self._running.discard)
        self.request_ids[request.request_id] = (request, names[0])
        self._lose_answer("CreateGeneration")
        return self.records[names[0]].generation

    async def EstimateGeneration(
        self, request: generation_pb2.EstimateGenerationRequest, context: Any
    ) -> generation_pb2.Estimate:
        """Resolves; every generation takes one second."""
        self._note(context)
        queued = [r for r in self.records.values() if r.generation.state == Generation.QUEUED]
        return generation_pb2.Estimate(
            generation=self._resolve(request.generation), predicted_seconds=1.0, queue_position=len(queued) + 1
        )

    async def GetGeneration(self, request: generation_pb2.GetGenerationRequest, context: Any) -> Generation:
        """Returns one generation."""
        self._note(context)
        return self._record(request.name).generation

    async def ListGenerations(
        self, request: generation_pb2.ListGenerationsRequest, context: Any
    ) -> generation_pb2.ListGenerationsResponse:
        """Newest first; the page token is the number of generations before the page."""
        self._note(context)
        found = [
            record.generation
            for record in reversed(self.records.values())
            if (not request.states or record.generation.state in request.states)
            and (not request.variant or record.generation.variant == request.variant)
            and request.labels.items() <= record.generation.labels.items()
        ]
        start = int(request.page_token or 0)
        end = start + (request.page_size or 100)
        token = str(end) if end < len(found) else ""
        return generation_pb2.ListGenerationsResponse(generations=found[start:end], next_page_token=token)

    async def WatchGeneration(
        self, request: generation_pb2.WatchGenerationRequest, _context: Any
    ) -> AsyncIterator[GenerationEvent]:
        """Sends the history after a sequence number, then what is added."""
        record = self._record(request.name)
        if request.after_sequence > record.generation.last_sequence:
            raise OutOfRange(f"after_sequence is {request.after_sequence}: {request.name} has no such event yet.")
        left = self._messages_left()
        sent, preview = request.after_sequence, None
        if record.generation.state == Generation.QUEUED:
            yield GenerationEvent(queue=QueueSnapshot(queue_position=1, waiting_for="a worker"))
        while True:
            for event in record.events[sent:]:
                next(left)
                yield event
                sent = event.sequence
            if record.generation.state in FINAL_STATES:
                return
            if record.preview is not preview and record.preview is not None:
                yield GenerationEvent(preview=record.preview)
                async with record.grown:
                    record.shown = record.preview
                    record.grown.notify_all()
            preview = record.preview
            await record.beyond(sent, preview)

    async def CancelGeneration(self, request: generation_pb2.CancelGenerationRequest, context: Any) -> Generation:
        """Cancels at once."""
        self._note(context)
        record = self._record(request.name)
        if record.generation.state not in FINAL_STATES:
            await record.append(GenerationEvent(state_change=StateChange(state=Generation.CANCELLED)))
        return record.generation

    async def DeleteGeneration(self, request: generation_pb2.DeleteGenerationRequest, context: Any) -> Empty:
        """Forgets a generation."""
        self._note(context)
        record = self._record(request.name)
        if record.generation.state not in FINAL_STATES and not request.force:
            state = Generation.State.Name(record.generation.state)
            raise FailedPrecondition(
                f"{request.name} is {state}: cancel it first, or use force.", reason=Reason.GENERATION_UNFINISHED
            )
        del self.records[request.name]
        self._lose_answer("DeleteGeneration")
        return Empty()

    async def DownloadVideo(
        self, request: generation_pb2.DownloadVideoRequest, _context: Any
    ) -> AsyncIterator[generation_pb2.VideoChunk]:
        """Sends the video in pieces of 1000 bytes."""
        video = self._record(request.name).video
        left = self._messages_left()
        for offset in range(request.offset, len(video), 1000):
            next(left)
            data = video[offset : offset + 1000]
            yield generation_pb2.VideoChunk(offset=offset, data=data, crc32=zlib.crc32(data))

    async def CreateDownloadUrl(
        self, request: generation_pb2.CreateDownloadUrlRequest, context: Any
    ) -> generation_pb2.DownloadUrl:
        """Makes a URL that nobody serves; it says how long it is good."""
        self._note(context)
        generation = self._record(request.name).generation
        seconds = request.valid_for.ToSeconds() if request.HasField("valid_for") else 3600
        url = f"https://videos.example.com/{request.name}.mp4?seconds={seconds}"
        return generation_pb2.DownloadUrl(url=url, expire_time=generation.end_time, video=generation.video)

    async def GetRecipe(self, request: generation_pb2.GetRecipeRequest, context: Any) -> generation_pb2.Recipe:
        """Says what `succeed` was made of: the parameters, and no numerics."""
        self._note(context)
        generation = self._record(request.name).generation
        if generation.state != Generation.SUCCEEDED:
            raise FailedPrecondition(f"{request.name} has no video.", reason=Reason.VIDEO_NOT_READY)
        given = {field.name: value for field, value in generation.parameters.ListFields()}
        given["solver"] = Solver(generation_pb2.Parameters.Solver.Name(generation.parameters.solver))
        return generation_pb2.Recipe(json=Recipe(generation.variant, generation.model_version, given, {}).to_json())

    async def UploadMedia(
        self, request: AsyncIterator[generation_pb2.UploadMediaRequest], _context: Any
    ) -> generation_pb2.Media:
        """Stores bytes as they are; the size is always 64 x 64."""
        data = b"".join([part.data async for part in request])
        name = f"media/{hashlib.sha256(data).hexdigest()}"
        self.media[name] = data
        self._lose_answer("UploadMedia")
        return generation_pb2.Media(name=name, width=64, height=64)

    async def ListVariants(
        self, _request: generation_pb2.ListVariantsRequest, context: Any
    ) -> generation_pb2.ListVariantsResponse:
        """Lists all variants as served by one worker each."""
        self._note(context)
        return generation_pb2.ListVariantsResponse(
            variants=[
                generation_pb2.Variant(
                    name=variant.name,
                    pool=f"pools/local.{variant.name}",
                    defaults=generation_pb2.Parameters(
                        num_inference_steps=variant.num_inference_steps, num_frames=variant.num_frames
                    ),
                    size_multiple=variant.size_multiple,
                    max_frames=variant.max_frames,
                    ready_workers=1,
                )
                for _, variant in sorted(VARIANTS.items())
            ]
        )

    async def GetQuota(self, _request: generation_pb2.GetQuotaRequest, context: Any) -> generation_pb2.Quota:
        """Has no limits."""
        self._note(context)
        states = [record.generation.state for record in self.records.values()]
        return generation_pb2.Quota(
            tenant="tenants/default",
            weight=1.0,
            queued=states.count(Generation.QUEUED),
            running=states.count(Generation.RUNNING),
        )

    async def ListUsage(
        self, _request: generation_pb2.ListUsageRequest, context: Any
    ) -> generation_pb2.ListUsageResponse:
        """Counts what succeeded, all on one day; each took a second."""
        self._note(context)
        used: dict[str, generation_pb2.Usage] = {}
        for record in self.records.values():
            done = record.generation
            if done.state == Generation.SUCCEEDED:
                usage = used.setdefault(done.variant, generation_pb2.Usage(variant=done.variant))
                usage.generations, usage.succeeded, usage.videos = (usage.videos + 1,) * 3
                usage.gpu_seconds += 1.0
                usage.video_bytes += done.video.size_bytes
        return generation_pb2.ListUsageResponse(usage=used.values())

    def _note(self, context: Any) -> None:
        self.metadata = list(context.invocation_metadata())

    def _record(self, name: str) -> Record:
        if name not in self.records:
            raise NotFound(f"There is no {name}.")
        return self.records[name]

    def _resolve(self, asked: Generation) -> Generation:
        if asked.variant not in VARIANTS:
            raise NotFound(
                f"variant is {asked.variant!r}: served are {', '.join(VARIANTS)}.", reason=Reason.VARIANT_NOT_SERVED
            )
        requested = from_message(asked.parameters)
        requested = replace(requested, loras=tuple(map(_resolved, requested.loras)))
        for which, name in (("last_image", requested.last_image), ("image", requested.image)):
            if name and name not in self.media:
                raise InvalidRequest(f"{name} does not exist: upload it first.", field=f"parameters.{which}")
        size = (64, 64) if requested.image else None
        parameters = resolve(VARIANTS[asked.variant], requested, image_size=size, draw_seed=lambda: 42)
        return Generation(
            variant=asked.variant,
            pool=asked.pool or f"pools/local.{asked.variant}",
            parameters=to_message(parameters),
            labels=asked.labels,
            state=Generation.QUEUED,
            preview_interval=asked.preview_interval,
        )

    def _lose_answer(self, method: str) -> None:
        if self.unavailable_answers and self.unavailable_answers[0] == method:
            self.unavailable_answers.popleft()
            raise Unavailable("The connection broke.")

    def _messages_left(self) -> Any:
        limit = self.break_streams.popleft() if self.break_streams else None

        def messages() -> Any:
            sent = 0
            while limit is None or sent < limit:
                sent += 1
                yield
            raise Unavailable("The connection broke.")

        return messages()


def _resolved(lora: RequestedLora) -> RequestedLora:
    """Every adapter is there, under a digest that is made of its reference."""
    if lora.adapter.startswith("models/"):
        return lora
    digest = hashlib.sha256(lora.adapter.encode()).hexdigest()
    return replace(lora, adapter=f"models/{lora.adapter.partition(':')[0]}/versions/sha256:{digest}")
