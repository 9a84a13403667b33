"""A gateway's side of InferenceService, in a few words."""

from __future__ import annotations

import asyncio
import uuid
import zlib
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc

from wan22.channels import open_channel
from wan22.errors import Wan22Error
from wan22.parameter_messages import to_message
from wan22.parameters import Parameters
from wan22.status import from_rpc_error
from wan22.v1 import inference_pb2 as pb
from wan22.v1 import inference_pb2_grpc
from wan22_inference.service import serve
from wan22_inference.settings import WorkerSettings
from wan22_inference.worker_server import Service

if TYPE_CHECKING:
    from wan22.v1.inference_pb2_grpc import InferenceServiceAsyncStub  # is in the stub file only


def attempt(generation: int = 1, number: int = 1, epoch: int = 1) -> pb.Attempt:
    return pb.Attempt(generation=f"generations/{uuid.UUID(int=generation)}", number=number, owner_epoch=epoch)


class Caller:
    """Calls one worker; errors are those of wan22.errors."""

    def __init__(self, channel: grpc.aio.Channel, version: str) -> None:
        self.stub: InferenceServiceAsyncStub = inference_pb2_grpc.InferenceServiceStub(channel)
        self.version = version

    async def generate(
        self,
        chosen: Parameters,
        which: pb.Attempt,
        images: Mapping[str, bytes] | None = None,
        checkpoint: bytes = b"",
        **start: Any,
    ) -> AsyncIterator[pb.GenerateEvent]:
        fields: dict[str, Any] = {"model_version": self.version, "parameters": to_message(chosen)} | start
        requests = [pb.GenerateRequest(start=pb.GenerateRequest.Start(attempt=which, **fields))]
        for media, data in (images or {}).items():
            for offset in range(0, len(data), 1000):
                chunk = pb.GenerateRequest.InputChunk(media=media, data=data[offset : offset + 1000])
                requests.append(pb.GenerateRequest(input_chunk=chunk))
        for offset in range(0, len(checkpoint), 10_000):
            data = checkpoint[offset : offset + 10_000]
            piece = pb.CheckpointChunk(offset=offset, data=data, crc32=zlib.crc32(data))
            requests.append(pb.GenerateRequest(checkpoint_chunk=piece))
        async for event in self.send(*requests):
            yield event

    async def send(self, *requests: pb.GenerateRequest) -> AsyncIterator[pb.GenerateEvent]:
        call = self.stub.Generate(iter(requests), timeout=60.0)
        try:
            async for event in call:
                yield event
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from None
        finally:
            call.cancel()

    async def cancel(self, which: pb.Attempt) -> None:
        await _raising(self.stub.CancelAttempt(pb.CancelAttemptRequest(attempt=which), timeout=10.0))

    async def release(self, which: pb.Attempt) -> None:
        await _raising(self.stub.ReleaseAttempt(pb.ReleaseAttemptRequest(attempt=which), timeout=10.0))

    async def worker(self) -> pb.Worker:
        answer: pb.Worker = await _raising(self.stub.GetWorker(pb.GetWorkerRequest(), timeout=10.0))
        return answer

    async def drain(self) -> pb.Worker:
        answer: pb.Worker = await _raising(self.stub.Drain(pb.DrainRequest(), timeout=10.0))
        return answer


async def _raising(call: Any) -> Any:
    try:
        return await call
    except grpc.aio.AioRpcError as error:
        raise from_rpc_error(error) from None


@asynccontextmanager
async def calling(address: str, version: str) -> AsyncIterator[Caller]:
    async with open_channel(address) as channel:
        yield Caller(channel, version)


@asynccontextmanager
async def serving(folder: Path, registry: str, model: str, **changed: Any) -> AsyncIterator[tuple[Service, Caller]]:
    """A worker in this process that starts to load `model`, and somebody who calls it."""
    given: dict[str, Any] = {"cache": folder / "cache", "scratch": folder / "scratch", "name": "workers/one"}
    given |= changed
    settings = WorkerSettings(
        port=0, health_port=0, pool="pools/test.pool", model=model, registry=registry, device="cpu", **given
    )
    async with serve(settings) as service, calling(f"127.0.0.1:{service.server.port}", model) as caller:
        yield service, caller


async def until(service: Service, condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await service.worker.changed.wait()


async def to_the_end(events: AsyncIterator[pb.GenerateEvent]) -> list[pb.GenerateEvent]:
    return [event async for event in events]


async def until_step(events: AsyncIterator[pb.GenerateEvent], step: int) -> None:
    async for event in events:
        if event.progress.HasField("step") and event.progress.step >= step:
            return
    raise AssertionError(f"the stream ended before step {step}")


async def error_of(events: AsyncIterator[pb.GenerateEvent]) -> Wan22Error:
    try:
        seen = await to_the_end(events)
    except Wan22Error as error:
        return error
    raise AssertionError(f"no error, but {[event.WhichOneof('event') for event in seen]}")


def video_of(events: list[pb.GenerateEvent]) -> bytes:
    return b"".join(event.video_chunk.data for event in events)


def kinds(events: list[pb.GenerateEvent]) -> list[str]:
    return [event.WhichOneof("event") or "" for event in events]


def checkpoints_of(events: list[pb.GenerateEvent]) -> dict[int, tuple[pb.Checkpoint, bytes]]:
    """What was announced, and the bytes that came, by step."""
    announced = {event.checkpoint.step: event.checkpoint for event in events if event.HasField("checkpoint")}
    data: dict[int, bytes] = dict.fromkeys(announced, b"")
    for event in events:
        if event.HasField("checkpoint_chunk"):
            chunk = event.checkpoint_chunk
            assert chunk.offset == len(data[chunk.step])
            assert chunk.crc32 == zlib.crc32(chunk.data)
            data[chunk.step] += chunk.data
    return {step: (announced[step], data[step]) for step in announced}
