"""Watching a generation across broken connections: each numbered event once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from wan22.client_calls import TRANSIENT, Calls
from wan22.errors import DeadlineExceeded, Unavailable
from wan22.v1 import generation_pb2

if TYPE_CHECKING:
    from wan22.v1.generation_pb2_grpc import GenerationServiceAsyncStub  # is in the stub file only

FINAL_STATES = frozenset(
    {generation_pb2.Generation.SUCCEEDED, generation_pb2.Generation.FAILED, generation_pb2.Generation.CANCELLED}
)
STREAM_SECONDS = 600.0
"""Deadline of one stream; it is then opened anew, so that a stream that a proxy forgot about ends some day."""


async def watch(
    calls: Calls, stub: GenerationServiceAsyncStub, name: str, after_sequence: int, *, deadline: float
) -> AsyncIterator[generation_pb2.GenerationEvent]:
    """Yields the events after a sequence number until the final state, resuming where a stream broke.

    Numbered events come once and in order; snapshots (sequence 0) may repeat. `deadline` is of the unary look-ups.
    """
    seen = after_sequence
    patience = calls.patience()
    while True:
        request = generation_pb2.WatchGenerationRequest(name=name, after_sequence=seen)
        try:
            async with calls.stream(stub.WatchGeneration, request, deadline=STREAM_SECONDS) as events:
                async for event in events:
                    patience.restore()
                    if event.sequence and event.sequence <= seen:
                        continue
                    seen = max(seen, event.sequence)
                    yield event
                    if event.state_change.state in FINAL_STATES:
                        return
        except DeadlineExceeded:
            continue
        except TRANSIENT as error:
            await patience.pause(error)
        else:  # ended in order without a final state in it: the watch began after it, or the server stops
            get = generation_pb2.GetGenerationRequest(name=name)
            generation = await calls.unary(stub.GetGeneration, get, deadline=deadline)
            if generation.state in FINAL_STATES and generation.last_sequence <= seen:
                return
            await patience.pause(Unavailable(f"The watch of {name} ended early."))
