"""The SDK: `async with Client() as client: await client.generate("out.mp4", variant=..., prompt=...)`."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NotRequired, Self, TypedDict, Unpack

from wan22 import client_download, client_watch
from wan22.channels import CHUNK_BYTES, open_channel
from wan22.client_calls import Calls
from wan22.errors import Cancelled, FailedPrecondition, InvalidRequest, Reason
from wan22.identifiers import uuid7
from wan22.recipe import Recipe
from wan22.status import from_status
from wan22.tls import Tls
from wan22.v1 import generation_pb2
from wan22.v1.generation_pb2 import DownloadUrl, Estimate, Generation, GenerationEvent, Media, Quota, Usage, Variant
from wan22.v1.generation_pb2_grpc import GenerationServiceStub

if TYPE_CHECKING:
    from wan22.v1.generation_pb2_grpc import GenerationServiceAsyncStub  # is in the stub file only

DEFAULT_ENDPOINT = "localhost:50051"
SolverName = Literal["UNIPC", "DPMPP", "EULER", "LCM"]
PriorityName = Literal["LOW", "NORMAL", "HIGH"]
ProfileName = Literal["QUALITY", "TURBO"]
ExpertName = Literal["HIGH", "LOW", "BOTH"]
MAX_MEDIA_BYTES = 32 << 20
"""Most bytes of an image file that the gateway takes."""


class LoraOption(TypedDict):
    """A LoRA adapter of the registry: MODEL[:TAG][@sha256:DIGEST], for which expert, and how strongly."""

    adapter: str
    expert: NotRequired[ExpertName]
    strength: NotRequired[float]


class ParameterOptions(TypedDict, total=False):
    """What a request may leave to its variant's defaults; None is the same as absent. Units: generation.proto."""

    negative_prompt: str | None
    width: int | None
    height: int | None
    num_frames: int | None
    fps: int | None
    num_inference_steps: int | None
    guidance_scale_high: float | None
    guidance_scale_low: float | None
    flow_shift: float | None
    boundary: float | None
    seed: int | None
    solver: SolverName | None
    profile: ProfileName | None
    loras: Sequence[LoraOption]
    cut_prompt: bool | None
    omit_prompt: bool | None


class Client:
    """A connection to a gateway, for one event loop; use as an async context manager.

    `endpoint` is host:port, by default WAN22_ENDPOINT or localhost:50051; `api_key` is by default WAN22_API_KEY; `tls`
    is by default the files of WAN22_CA_FILE, and for a client certificate WAN22_CERT_FILE and WAN22_KEY_FILE.
    `timeout` is the deadline in seconds of each try of a unary call. While the gateway is UNAVAILABLE a call is tried
    again for `patience` seconds since its last progress, and for `first_patience` at an endpoint that never answered.
    All errors are those of wan22.errors.
    """

    def __init__(
        self,
        endpoint: str | None = None,
        api_key: str | None = None,
        tls: Tls | None = None,
        *,
        timeout: float = 30.0,
        first_patience: float = 5.0,
        patience: float = 60.0,
    ) -> None:
        self.endpoint = endpoint or os.environ.get("WAN22_ENDPOINT") or DEFAULT_ENDPOINT
        if "://" in self.endpoint:
            raise InvalidRequest(
                f"endpoint is {self.endpoint!r}: use host:port without a scheme, such as {DEFAULT_ENDPOINT}.",
                field="endpoint",
            )
        key = api_key or os.environ.get("WAN22_API_KEY")
        self._calls = Calls(
            self.endpoint,
            key,
            first_patience=first_patience,
            patience=patience,
            advice="start a gateway there by `wan22 up`, or say where it is by WAN22_ENDPOINT.",
        )
        self._timeout = timeout
        self._tls = tls or tls_from_environment()

    async def __aenter__(self) -> Self:
        self._channel = open_channel(self.endpoint, self._tls)
        self._stub: GenerationServiceAsyncStub = GenerationServiceStub(self._channel)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._channel.close()

    async def create(
        self,
        *,
        variant: str,
        prompt: str,
        image: str | None = None,
        last_image: str | None = None,
        labels: Mapping[str, str] | None = None,
        pool: str = "",
        request_id: str | None = None,
        count: int = 1,
        priority: PriorityName | None = None,
        finish_within: float | None = None,
        keep_for: float | None = None,
        reuse: bool = False,
        webhook_url: str = "",
        preview_interval: int = 0,
        **options: Unpack[ParameterOptions],
    ) -> Generation:
        """Queues a generation and returns it as accepted: durable, with the parameters that take effect.

        `count` of 2 to 4 queues as many, with the seeds seed, seed + 1 …; the first is returned and names the others as
        `siblings`. `image` and `last_image` are names that `upload_media` returned. Tries repeat the same `request_id`,
        drawn here when absent, so one call makes one generation. `priority` orders it among the tenant's own.
        `finish_within` is its deadline, seconds from its acceptance on: it is refused, or fails, rather than late.
        `keep_for` is how many seconds the video is kept. `reuse`, which takes a seed, answers by an earlier video of
        exactly the same, if there is one: the generation returned is SUCCEEDED then. `webhook_url` is told of its end,
        in place of the tenant's webhook. After every `preview_interval` steps `watch` yields a preview.
        """
        wanted = _wanted(
            variant=variant,
            prompt=prompt,
            image=image,
            last_image=last_image,
            labels=labels,
            pool=pool,
            options=options,
        )
        request = generation_pb2.CreateGenerationRequest(
            generation=wanted,
            request_id=request_id or uuid7(),
            count=count,
            reuse=reuse,
            webhook_url=webhook_url,
        )
        request.generation.preview_interval = preview_interval
        if keep_for is not None:
            request.keep_for.FromMicroseconds(round(keep_for * 1_000_000))
        if priority is not None:
            request.generation.priority = Generation.Priority.Value(priority)
        if finish_within is not None:
            request.finish_within.FromMicroseconds(round(finish_within * 1_000_000))
        return await self._calls.unary(self._stub.CreateGeneration, request, deadline=self._timeout)

    async def estimate(
        self,
        *,
        variant: str,
        prompt: str,
        image: str | None = None,
        last_image: str | None = None,
        labels: Mapping[str, str] | None = None,
        pool: str = "",
        **options: Unpack[ParameterOptions],
    ) -> Estimate:
        """Checks a request as `create` would, without queueing it: effective parameters, cost, place in the queue."""
        wanted = _wanted(
            variant=variant,
            prompt=prompt,
            image=image,
            last_image=last_image,
            labels=labels,
            pool=pool,
            options=options,
        )
        request = generation_pb2.EstimateGenerationRequest(generation=wanted)
        return await self._calls.unary(self._stub.EstimateGeneration, request, deadline=self._timeout)

    async def recipe(self, name: str) -> Recipe:
        """What a succeeded generation's video was made of, the texts included."""
        request = generation_pb2.GetRecipeRequest(name=name)
        answer = await self._calls.unary(self._stub.GetRecipe, request, deadline=self._timeout)
        return Recipe.from_json(answer.json)

    async def upload_media(self, source: Path | bytes) -> Media:
        """Stores an image file, given by path or as bytes; the same image has the same name each time."""
        data = await asyncio.to_thread(_read_media, source) if isinstance(source, Path) else source
        if len(data) > MAX_MEDIA_BYTES:
            raise InvalidRequest(f"The image has {len(data)} bytes: use at most {MAX_MEDIA_BYTES}.", field="data")

        async def pieces() -> AsyncIterator[generation_pb2.UploadMediaRequest]:
            for start in range(0, len(data), CHUNK_BYTES):
                yield generation_pb2.UploadMediaRequest(data=data[start : start + CHUNK_BYTES])

        return await self._calls.send(self._stub.UploadMedia, pieces, deadline=4 * self._timeout)

    async def get(self, name: str) -> Generation:
        """Returns a generation as it is now. Raises NotFound."""
        request = generation_pb2.GetGenerationRequest(name=name)
        return await self._calls.unary(self._stub.GetGeneration, request, deadline=self._timeout)

    async def list(
        self,
        *,
        states: Sequence[Generation.State.ValueType] = (),
        variant: str = "",
        labels: Mapping[str, str] | None = None,
        page_size: int = 100,
    ) -> AsyncIterator[Generation]:
        """Yields generations that match all filters, newest first, page by page."""
        request = generation_pb2.ListGenerationsRequest(
            states=states, variant=variant, labels=labels, page_size=page_size
        )
        while True:
            page = await self._calls.unary(self._stub.ListGenerations, request, deadline=self._timeout)
            for generation in page.generations:
                yield generation
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    def watch(self, name: str, after_sequence: int = 0) -> AsyncIterator[GenerationEvent]:
        """Yields a generation's events until its final state; broken connections are resumed, no event comes twice."""
        return client_watch.watch(self._calls, self._stub, name, after_sequence, deadline=self._timeout)

    async def wait(self, name: str) -> Generation:
        """Returns a generation once it is in a final state; bound the wait by `asyncio.timeout`."""
        async for _ in self.watch(name):
            pass
        return await self.get(name)

    async def cancel(self, name: str) -> Generation:
        """Asks a generation to stop and returns it; `wait` tells when it has. A final state stays as it is."""
        request = generation_pb2.CancelGenerationRequest(name=name)
        return await self._calls.unary(self._stub.CancelGeneration, request, deadline=self._timeout)

    async def delete(self, name: str, *, force: bool = False) -> None:
        """Removes a generation with its video. Raises FailedPrecondition when it is unfinished, unless `force`."""
        request = generation_pb2.DeleteGenerationRequest(name=name, force=force)
        await self._calls.delete(self._stub.DeleteGeneration, request, deadline=self._timeout)

    async def download(self, name: str, path: Path | str) -> Path:
        """Puts a generation's MP4 at `path`, whole or not at all. Raises DataLoss when they are other bytes."""
        generation = await self.get(name)
        if not generation.HasField("video"):
            state = Generation.State.Name(generation.state)
            raise FailedPrecondition(
                f"{name} is {state}: there is a video once it is SUCCEEDED.", reason=Reason.VIDEO_NOT_READY
            )
        target = Path(path)
        await client_download.download(self._calls, self._stub, name, generation.video, target)
        return target

    async def download_url(self, name: str, *, valid_for: float | None = None) -> DownloadUrl:
        """Returns a URL by which anybody may fetch a generation's MP4 for so many seconds, at most an hour."""
        request = generation_pb2.CreateDownloadUrlRequest(name=name)
        if valid_for is not None:
            request.valid_for.FromMicroseconds(round(valid_for * 1_000_000))
        return await self._calls.unary(self._stub.CreateDownloadUrl, request, deadline=self._timeout)

    async def quota(self) -> Quota:
        """Returns the caller's own limits and what it has of them."""
        request = generation_pb2.GetQuotaRequest()
        return await self._calls.unary(self._stub.GetQuota, request, deadline=self._timeout)

    async def usage(self, days: int = 30) -> Sequence[Usage]:
        """Returns what the caller has used in so many days back from today (UTC), by day and variant."""
        request = generation_pb2.ListUsageRequest(days=days)
        return (await self._calls.unary(self._stub.ListUsage, request, deadline=self._timeout)).usage

    async def variants(self) -> Sequence[Variant]:
        """Returns the served variants by name, with defaults and limits."""
        request = generation_pb2.ListVariantsRequest()
        return (await self._calls.unary(self._stub.ListVariants, request, deadline=self._timeout)).variants

    async def generate(
        self,
        output: Path | str,
        *,
        variant: str,
        prompt: str,
        image: Path | bytes | None = None,
        last_image: Path | bytes | None = None,
        labels: Mapping[str, str] | None = None,
        on_event: Callable[[GenerationEvent], None] = lambda _: None,
        preview_interval: int = 0,
        **options: Unpack[ParameterOptions],
    ) -> Generation:
        """Makes a video and puts it at `output`: upload, create, watch, download.

        `on_event` gets what `watch` yields, previews after every `preview_interval` steps among it.

        Raises the generation's own error when it FAILED and Cancelled when it was cancelled.
        """
        media = [None if source is None else (await self.upload_media(source)).name for source in (image, last_image)]
        created = await self.create(
            variant=variant,
            prompt=prompt,
            image=media[0],
            last_image=media[1],
            labels=labels,
            preview_interval=preview_interval,
            **options,
        )
        async for event in self.watch(created.name):
            on_event(event)
        generation = await self.get(created.name)
        raise_unless_succeeded(generation)
        await self.download(generation.name, output)
        return generation


def raise_unless_succeeded(generation: Generation) -> None:
    """Raises a FAILED generation's own error, Cancelled for a CANCELLED one."""
    if generation.state == Generation.FAILED:
        raise from_status(generation.error)
    if generation.state == Generation.CANCELLED:
        raise Cancelled(f"{generation.name} was cancelled.")


def _wanted(
    *,
    variant: str,
    prompt: str,
    image: str | None,
    last_image: str | None,
    labels: Mapping[str, str] | None,
    pool: str,
    options: ParameterOptions,
) -> Generation:
    fields: Any = options  # protobuf takes a solver by its name
    parameters = generation_pb2.Parameters(prompt=prompt, image=image, last_image=last_image, **fields)
    return Generation(variant=variant, pool=pool, parameters=parameters, labels=labels)


def tls_from_environment() -> Tls | None:
    """The files of WAN22_CA_FILE, WAN22_CERT_FILE and WAN22_KEY_FILE; None without the first: plaintext."""
    ca, cert, key = (os.environ.get(f"WAN22_{part}_FILE") for part in ("CA", "CERT", "KEY"))
    if not ca:
        return None
    return Tls(Path(ca), Path(cert) if cert else None, Path(key) if key else None)


def _read_media(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(MAX_MEDIA_BYTES + 1)
