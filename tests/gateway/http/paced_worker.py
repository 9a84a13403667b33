"""A worker that says how far it is, and ends when it is let, or told to stop."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator

from tests.gateway.preview_pictures import preview
from tests.gateway.scripted_worker import VIDEO, Context, ScriptedWorkerServicer, accepted, chunk, finished

from wan22.errors import FailedPrecondition, Reason
from wan22.v1 import generation_pb2, inference_pb2
from wan22.v1.inference_pb2 import GenerateEvent, GenerateRequest

Progress = generation_pb2.Progress


class PacedWorkerServicer(ScriptedWorkerServicer):
    """Waits before its last step while `go` is not set."""

    def __init__(self) -> None:
        super().__init__()
        self.go = asyncio.Event()
        self.go.set()
        self.running = asyncio.Event()
        """Set while an attempt waits."""
        self._busy = False
        self._stops: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)

    async def Generate(
        self, request_iterator: AsyncIterator[GenerateRequest], context: Context
    ) -> AsyncIterator[GenerateEvent]:
        start = (await anext(aiter(request_iterator))).start
        if self._busy:
            raise FailedPrecondition("It prepares nothing.", reason=Reason.WORKER_BUSY)
        self.starts.append(start)
        async for request in request_iterator:
            self.inputs += request.input_chunk.data
        yield accepted(start)
        yield GenerateEvent(progress=Progress(stage=Progress.ENCODING_TEXT))
        yield GenerateEvent(progress=Progress(stage=Progress.DENOISING, step=2, num_steps=4))
        if start.preview_interval:
            yield GenerateEvent(preview=preview(2, 4))
        stop = self._stops[start.attempt.generation]
        self._busy = True
        self.running.set()
        waits = [asyncio.create_task(self.go.wait()), asyncio.create_task(stop.wait())]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waits:
                task.cancel()
            self.running.clear()
            self._busy = False
        if stop.is_set():
            yield GenerateEvent(cancelled=GenerateEvent.Cancelled())
            return
        yield GenerateEvent(progress=Progress(stage=Progress.DECODING))
        for offset in range(start.video_offset, len(VIDEO), 1 << 20):
            yield chunk(offset)
        last = finished()
        last.finished.recipe = '{"made": "by hand"}'
        yield last

    async def CancelAttempt(
        self, request: inference_pb2.CancelAttemptRequest, context: Context
    ) -> inference_pb2.CancelAttemptResponse:
        self._stops[request.attempt.generation].set()
        return await super().CancelAttempt(request, context)
