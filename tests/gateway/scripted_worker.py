"""A worker whose every Generate call follows the next script: a real server, without an engine."""

from __future__ import annotations

import asyncio
import hashlib
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import grpc

from wan22.channels import open_channel
from wan22.client import Client
from wan22.errors import Aborted, Reason, Wan22Error
from wan22.parameter_messages import complete_from_message
from wan22.peers import Peers
from wan22.server import Server
from wan22.tls import Tls
from wan22.v1 import generation_pb2, inference_pb2, inference_pb2_grpc, pool_pb2, pool_pb2_grpc
from wan22.v1.inference_pb2 import GenerateEvent, GenerateRequest
from wan22_gateway.gateway import Serving
from wan22_gateway.gateway import serve as serve_gateway
from wan22_gateway.settings import GatewaySettings
from wan22_testing import tiny_tokenizer

from . import rows

Start = GenerateRequest.Start
Script = Callable[[Start], Sequence[GenerateEvent | Wan22Error]]
Context = grpc.aio.ServicerContext[Any, Any]
VIDEO = b"not really an mp4" * 100_000
T2V = "t2v-a14b-tiny"
DIGEST = "sha256:" + hashlib.sha256(VIDEO).hexdigest()


def accepted(start: Start, **changes: str) -> GenerateEvent:
    digest = complete_from_message(start.parameters).digest
    return GenerateEvent(
        accepted=GenerateEvent.Accepted(**{"parameters_digest": digest, "incarnation": "i1", **changes})
    )


def chunk(offset: int, *, damaged: bool = False) -> GenerateEvent:
    data = VIDEO[offset : offset + (1 << 20)]
    crc32 = zlib.crc32(data) ^ damaged
    return GenerateEvent(video_chunk=generation_pb2.VideoChunk(offset=offset, data=data, crc32=crc32))


def finished(digest: str = DIGEST) -> GenerateEvent:
    video = generation_pb2.Video(size_bytes=len(VIDEO), digest=digest)
    return GenerateEvent(finished=GenerateEvent.Finished(video=video, compute_seconds=1.0))


def whole(start: Start) -> list[GenerateEvent | Wan22Error]:
    """What a worker in order does."""
    return [accepted(start), *(chunk(offset) for offset in range(start.video_offset, len(VIDEO), 1 << 20)), finished()]


async def until_refused(call: Callable[[], Awaitable[Any]]) -> Wan22Error:
    """Calls again and again until there is an error, which is returned."""
    while True:
        try:
            await call()
        except Wan22Error as error:
            return error
        await asyncio.sleep(0.05)


async def until(condition: Callable[[], Awaitable[Any]]) -> None:
    """Asks again and again until the answer is true."""
    while True:
        if await condition():
            return
        await asyncio.sleep(0.02)


class ScriptedWorkerServicer(inference_pb2_grpc.InferenceServiceServicer):
    """Plays the scripts one after the other; then does as `whole` says."""

    def __init__(self, *scripts: Script) -> None:
        self._scripts = list(scripts)
        self.starts: list[Start] = []
        self.cancelled: list[inference_pb2.Attempt] = []
        self.released: list[inference_pb2.Attempt] = []
        self.held: list[inference_pb2.HeldAttempt] = []
        self.inputs = b""
        self.checkpoint = b""
        """What came of checkpoints with the last Generate call."""
        self.numerics = "n1"
        self.incarnation = "i1"
        self.release = asyncio.Event()
        """Set at each ReleaseAttempt."""
        self._draining = False

    async def Generate(
        self, request_iterator: AsyncIterator[GenerateRequest], context: Context
    ) -> AsyncIterator[GenerateEvent]:
        start = (await anext(aiter(request_iterator))).start
        self.starts.append(start)
        self.checkpoint = b""
        async for request in request_iterator:
            self.inputs += request.input_chunk.data
            self.checkpoint += request.checkpoint_chunk.data
        script = self._scripts.pop(0) if self._scripts else whole
        for event in script(start):
            if isinstance(event, Wan22Error):
                raise event
            yield event

    async def CancelAttempt(
        self, request: inference_pb2.CancelAttemptRequest, context: Context
    ) -> inference_pb2.CancelAttemptResponse:
        self.cancelled.append(request.attempt)
        return inference_pb2.CancelAttemptResponse()

    async def ReleaseAttempt(
        self, request: inference_pb2.ReleaseAttemptRequest, context: Context
    ) -> inference_pb2.ReleaseAttemptResponse:
        if any(held.attempt.owner_epoch > request.attempt.owner_epoch for held in self.held):
            raise Aborted("A newer owner was here.", reason=Reason.STALE_OWNER)
        self.held = [held for held in self.held if held.attempt.generation != request.attempt.generation]
        self.released.append(request.attempt)
        self.release.set()
        return inference_pb2.ReleaseAttemptResponse()

    async def GetWorker(self, request: inference_pb2.GetWorkerRequest, context: Context) -> inference_pb2.Worker:
        return inference_pb2.Worker(
            name="workers/w1",
            uid="u1",
            incarnation=self.incarnation,
            pool=rows.POOL,
            model_version=rows.VERSION,
            state=inference_pb2.Worker.DRAINING if self._draining else inference_pb2.Worker.IDLE,
            attempts=self.held,
            numerics_digest=self.numerics,
        )

    async def Drain(self, request: inference_pb2.DrainRequest, context: Context) -> inference_pb2.Worker:
        self._draining = True
        return await self.GetWorker(inference_pb2.GetWorkerRequest(), context)


@asynccontextmanager
async def serve(servicer: inference_pb2_grpc.InferenceServiceServicer, tls: Tls | None = None) -> AsyncIterator[str]:
    """Runs the worker and yields its host:port."""
    add = partial(inference_pb2_grpc.add_InferenceServiceServicer_to_server, servicer)
    async with Server([add], host="127.0.0.1", port=0, tls=tls, peers=Peers.of("gateway")) as server:
        yield f"127.0.0.1:{server.port}"


@dataclass(frozen=True)
class Place:
    """A gateway that serves, and the SDK for it."""

    client: Client
    serving: Serving

    @property
    def http(self) -> str:
        return f"http://127.0.0.1:{self.serving.http_port}"


@asynccontextmanager
async def place_with(
    folder: Path,
    worker: inference_pb2_grpc.InferenceServiceServicer,
    variant: str = T2V,
    api_key: str | None = None,
    worker_tls: Tls | None = None,
    **changed: Any,
) -> AsyncIterator[Place]:
    """A gateway whose one pool, of the variant, leads to the worker; `changed` are its settings."""
    async with serve(worker, worker_tls) as address, place_at(folder, address, variant, api_key, **changed) as place:
        yield place


@asynccontextmanager
async def place_at(
    folder: Path, address: str, variant: str = T2V, api_key: str | None = None, **changed: Any
) -> AsyncIterator[Place]:
    """The same, with a worker that others serve."""
    tokenizers = folder / "gateway" / "tokenizers"
    tokenizers.mkdir(parents=True, exist_ok=True)
    tiny_tokenizer.build().save(str(tokenizers / ("0" * 64 + ".json")))
    folders = {"store": folder / "gateway", "results": folder / "videos"}
    settings = GatewaySettings(
        port=0, health_port=0, registry="localhost:1", **{"http_port": 0, "auth": "off", **folders, **changed}
    )
    async with serve_gateway(settings) as serving:
        target = f"127.0.0.1:{serving.port}"
        metadata = [("authorization", f"Bearer {api_key}")] if api_key else []
        async with open_channel(target, settings.tls) as channel:
            request = pool_pb2.ApplyPoolRequest(pool=rows.served_pool(address, variant))
            await pool_pb2_grpc.PoolServiceStub(channel).ApplyPool(request, metadata=metadata)
        async with Client(target, api_key, settings.tls) as client:
            yield Place(client, serving)


@asynccontextmanager
async def gateway_with(
    folder: Path, worker: ScriptedWorkerServicer, *args: Any, **changed: Any
) -> AsyncIterator[Client]:
    """As `place_with`, the SDK alone."""
    async with place_with(folder, worker, *args, **changed) as place:
        yield place.client
