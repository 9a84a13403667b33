"""InferenceService: translates messages; the rules are the worker's and the book's."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import grpc
from google.protobuf.duration_pb2 import Duration

from wan22.channels import CHUNK_BYTES
from wan22.errors import Aborted, DeadlineExceeded, InvalidRequest, OutOfRange, Reason
from wan22.memory_messages import economy_from_message, memory_message
from wan22.names import VersionName, check_generation
from wan22.parameter_messages import complete_from_message
from wan22.parameters import Parameters
from wan22.recipe import numerics_digest
from wan22.status import to_status
from wan22.v1 import inference_pb2, inference_pb2_grpc
from wan22_inference import event_messages
from wan22_inference.attempts import Fence, Phase
from wan22_inference.engine.preview import Preview
from wan22_inference.inputs import Inputs, Resume
from wan22_inference.jobs import Failed, Finished, Lost, Outcome, StoredCheckpoint
from wan22_inference.renderer import GpuReading
from wan22_inference.worker import Following, Worker, draining

INPUT_TIMEOUT = 30.0
"""Seconds within which the next part of a Generate call's input must come."""

Requests = AsyncIterator[inference_pb2.GenerateRequest]
Context = grpc.aio.ServicerContext[Any, Any]


class InferenceServicer(inference_pb2_grpc.InferenceServiceServicer):
    """Serves one worker."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    async def Generate(
        self, request_iterator: Requests, context: Context
    ) -> AsyncIterator[inference_pb2.GenerateEvent]:
        """Starts an attempt or re-attaches to it, and follows it."""
        requests = aiter(request_iterator)
        following, start = await self._open(requests)
        try:
            async for event in self._until_its_turn(following):
                yield event
            if following.held.phase is not Phase.WITHDRAWN:
                async for event in self._follow(following, start.video_offset, start.checkpoint_step):
                    yield event
        finally:
            self._worker.leave(following)

    async def _open(self, requests: Requests) -> tuple[Following, inference_pb2.GenerateRequest.Start]:
        """Reads a call's input and gives it its attempt."""
        first = await _next(requests)
        if first is None or first.WhichOneof("part") != "start":
            raise InvalidRequest("The first message is not `start`: send it first.", field="start")
        start = first.start
        fence = _fence(start.attempt)
        if start.video_offset < 0:
            raise InvalidRequest(f"video_offset is {start.video_offset}: use 0 or more.", field="start.video_offset")
        parameters = _parameters(start)
        inputs = Inputs(parameters, _resume(start), economy_from_message(start.economy), start.preview_interval)

        async def receive() -> None:
            await _receive(requests, inputs)

        generation = start.attempt.generation
        following = await self._worker.open(
            generation, fence, start.model_version, parameters, inputs, receive, may_prepare=start.may_prepare
        )
        return following, start

    async def CancelAttempt(
        self, request: inference_pb2.CancelAttemptRequest, context: Context
    ) -> inference_pb2.CancelAttemptResponse:
        """Stops an attempt at its next step."""
        generation = check_generation(request.attempt.generation, "attempt.generation")
        self._worker.cancel(generation, _fence(request.attempt))
        return inference_pb2.CancelAttemptResponse()

    async def ReleaseAttempt(
        self, request: inference_pb2.ReleaseAttemptRequest, context: Context
    ) -> inference_pb2.ReleaseAttemptResponse:
        """Forgets an outcome."""
        generation = check_generation(request.attempt.generation, "attempt.generation")
        await self._worker.release(generation, _fence(request.attempt))
        return inference_pb2.ReleaseAttemptResponse()

    async def GetWorker(self, request: inference_pb2.GetWorkerRequest, context: Context) -> inference_pb2.Worker:
        """The worker as it is."""
        return self._describe()

    async def Drain(self, request: inference_pb2.DrainRequest, context: Context) -> inference_pb2.Worker:
        """Takes no new attempt from now on."""
        self._worker.drain()
        return self._describe()

    async def _until_its_turn(self, following: Following) -> AsyncIterator[inference_pb2.GenerateEvent]:
        """Returns when the attempt has started, at once for most; also when it was withdrawn before."""
        held, job = following.held, following.job
        if held.prepared:
            yield event_messages.prepared(job.parameters.digest, self._worker.identity.incarnation)
        while held.prepared:
            _check_owner(following)
            await job.changed.wait()
        _check_owner(following)
        if held.phase is Phase.WITHDRAWN and self._worker.draining:
            raise draining()
        if held.phase is Phase.WITHDRAWN:
            yield event_messages.cancelled()

    async def _follow(
        self, following: Following, offset: int, checkpoint_step: int
    ) -> AsyncIterator[inference_pb2.GenerateEvent]:
        job = following.job
        yield event_messages.accepted(job.parameters.digest, self._worker.identity.incarnation)
        sent = max(0, len(job.progress) - 1)  # of what was before, only where it stands
        shown: Preview | None = None
        while True:
            _check_owner(following)
            if sent < len(job.progress):
                yield event_messages.progress(job.progress[sent])
                sent += 1
            elif job.preview is not shown and job.preview is not None:
                shown = job.preview
                yield event_messages.preview(shown)
            elif job.outcome is not None:
                break
            elif job.checkpoint is not None and job.checkpoint.step > checkpoint_step:
                checkpoint_step = job.checkpoint.step
                async for event in self._checkpoint(job.checkpoint, following):
                    yield event
            else:
                await job.changed.wait()
        async for event in self._end(job.outcome, following, offset):
            yield event

    async def _end(
        self, outcome: Outcome, following: Following, offset: int
    ) -> AsyncIterator[inference_pb2.GenerateEvent]:
        if isinstance(outcome, Finished):
            async for event in _video(outcome, offset):
                _check_owner(following)
                yield event
            yield event_messages.finished(outcome)
        elif isinstance(outcome, Failed):
            yield event_messages.failed(outcome)
        elif isinstance(outcome, Lost):
            raise outcome.error
        else:
            yield event_messages.cancelled()

    async def _checkpoint(
        self, stored: StoredCheckpoint, following: Following
    ) -> AsyncIterator[inference_pb2.GenerateEvent]:
        try:
            file = await asyncio.to_thread(stored.path.open, "rb")
        except FileNotFoundError:
            return  # a newer one has taken its place
        with file:
            yield event_messages.checkpoint(stored, numerics_digest(self._worker.renderer.numerics))
            offset = 0
            while data := await asyncio.to_thread(file.read, CHUNK_BYTES):
                _check_owner(following)
                yield event_messages.checkpoint_chunk(stored.step, offset, data)
                offset += len(data)

    def _describe(self) -> inference_pb2.Worker:
        worker, renderer = self._worker, self._worker.renderer
        return inference_pb2.Worker(
            name=worker.identity.name,
            uid=worker.identity.uid,
            incarnation=worker.identity.incarnation,
            pool=worker.identity.pool,
            model_version=renderer.version,
            state=_state(worker),
            bytes_loaded=renderer.bytes_loaded,
            bytes_total=renderer.bytes_total,
            attempts=[
                inference_pb2.HeldAttempt(
                    attempt=inference_pb2.Attempt(
                        generation=held.key.generation, number=held.key.number, owner_epoch=held.fence.owner_epoch
                    ),
                    running=held.running,
                    prepared=held.prepared,
                )
                for held in worker.held
            ],
            error=None if renderer.error is None else to_status(renderer.error),
            numerics_digest=numerics_digest(renderer.numerics) if renderer.numerics else "",
            numerics=renderer.numerics,
            memory=None if renderer.holdings is None else memory_message(renderer.holdings),
            gpu=_gpu(renderer.gpu),
        )


def _state(worker: Worker) -> inference_pb2.Worker.State.ValueType:
    if worker.draining:
        return inference_pb2.Worker.DRAINING
    if worker.renderer.error is not None:
        return inference_pb2.Worker.BROKEN
    if worker.renderer.variant is None:
        return inference_pb2.Worker.LOADING
    return inference_pb2.Worker.BUSY if worker.busy else inference_pb2.Worker.IDLE


def _gpu(reading: GpuReading | None) -> inference_pb2.Worker.Gpu | None:
    if reading is None:
        return None
    age = Duration()
    age.FromMilliseconds(round((time.monotonic() - reading.time) * 1000))
    return inference_pb2.Worker.Gpu(utilization=reading.utilization, age=age)


def _fence(attempt: inference_pb2.Attempt) -> Fence:
    check_generation(attempt.generation, "attempt.generation")
    for field, value in (("number", attempt.number), ("owner_epoch", attempt.owner_epoch)):
        if value < 1:
            raise InvalidRequest(f"attempt.{field} is {value}: use 1 or more.", field=f"attempt.{field}")
    return Fence(attempt.number, attempt.owner_epoch)


def _parameters(start: inference_pb2.GenerateRequest.Start) -> Parameters:
    VersionName.parse(start.model_version, "start.model_version")
    try:
        return complete_from_message(start.parameters)
    except TypeError as error:
        raise InvalidRequest(f"start.{error}: send what the gateway resolved.", field="start.parameters") from error


def _resume(start: inference_pb2.GenerateRequest.Start) -> Resume | None:
    if not start.HasField("resume"):
        return None
    resume = start.resume
    return Resume(resume.step, resume.size_bytes, resume.digest, resume.numerics_digest)


async def _next(requests: Requests) -> inference_pb2.GenerateRequest | None:
    """The next message, or None at the half-close."""
    try:
        async with asyncio.timeout(INPUT_TIMEOUT):
            return await anext(requests, None)
    except TimeoutError:
        raise DeadlineExceeded(
            f"No further input came for {INPUT_TIMEOUT:g} s: send it all, then half-close."
        ) from None


async def _receive(requests: Requests, inputs: Inputs) -> None:
    while (request := await _next(requests)) is not None:
        part = request.WhichOneof("part")
        if part == "input_chunk":
            inputs.add(request.input_chunk.media, request.input_chunk.data)
        elif part == "checkpoint_chunk":
            chunk = request.checkpoint_chunk
            inputs.add_checkpoint(chunk.offset, chunk.data, chunk.crc32)
        else:
            raise InvalidRequest("A message after the first is no chunk: send `start` once.", field="start")


def _check_owner(following: Following) -> None:
    if following.displaced:
        raise Aborted(
            f"A newer owner or stream follows {following.held.key}: stop working on it.",
            reason=Reason.STALE_OWNER,
            metadata=following.held.fence.metadata,
        )


async def _video(outcome: Finished, offset: int) -> AsyncIterator[inference_pb2.GenerateEvent]:
    if offset > outcome.size_bytes:
        raise OutOfRange(f"video_offset is {offset}: the video has {outcome.size_bytes} bytes.")
    with await asyncio.to_thread(outcome.path.open, "rb") as file:
        await asyncio.to_thread(file.seek, offset)
        while data := await asyncio.to_thread(file.read, CHUNK_BYTES):
            yield event_messages.video_chunk(offset, data)
            offset += len(data)
