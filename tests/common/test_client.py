"""The SDK against a gateway in memory, over real gRPC."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from grpc import aio

from wan22.client import Client
from wan22.errors import (
    AlreadyExists,
    Cancelled,
    DataLoss,
    DeadlineExceeded,
    FailedPrecondition,
    InvalidRequest,
    NotFound,
    OutOfRange,
    Reason,
    Unavailable,
)
from wan22.server import Server
from wan22.v1.generation_pb2 import Generation, GenerationEvent, StateChange, VideoChunk
from wan22.v1.generation_pb2_grpc import add_GenerationServiceServicer_to_server
from wan22_testing.memory_gateway_servicer import MemoryGateway

VIDEO = bytes(range(256)) * 40
TINY = "t2v-a14b-tiny"


@pytest.fixture
def gateway() -> MemoryGateway:
    return MemoryGateway()


@pytest.fixture
async def server(gateway: MemoryGateway) -> AsyncIterator[Server]:
    def register(server: aio.Server) -> None:
        add_GenerationServiceServicer_to_server(gateway, server)

    async with Server([register], host="127.0.0.1", port=0) as server:
        yield server


@pytest.fixture
async def client(server: Server) -> AsyncIterator[Client]:
    async with Client(f"127.0.0.1:{server.port}") as client:
        yield client


async def finished(client: Client, gateway: MemoryGateway) -> str:
    generation = await client.create(variant=TINY, prompt="a cat")
    await gateway.succeed(generation.name, VIDEO)
    return generation.name


async def test_create_sends_what_was_given_and_nothing_else(client: Client, gateway: MemoryGateway) -> None:
    generation = await client.create(
        variant=TINY, prompt="a cat", negative_prompt="", seed=2**63 - 1, num_frames=5, labels={"team": "a"}
    )

    asked, name = next(iter(gateway.request_ids.values()))
    assert asked.generation.parameters.negative_prompt == ""
    assert [field.name for field, _ in asked.generation.parameters.ListFields()] == [
        "prompt",
        "negative_prompt",
        "num_frames",
        "seed",
    ]
    assert generation.name == name
    assert generation.parameters.seed == 2**63 - 1
    assert generation.parameters.num_inference_steps == 20
    assert dict(generation.labels) == {"team": "a"}


async def test_a_lost_answer_to_create_makes_no_second_generation(client: Client, gateway: MemoryGateway) -> None:
    gateway.unavailable_answers.extend(["CreateGeneration", "CreateGeneration"])

    generation = await client.create(variant=TINY, prompt="a cat")

    assert list(gateway.records) == [generation.name]


async def test_a_request_id_that_was_used_for_another_request_is_refused(client: Client) -> None:
    first = await client.create(variant=TINY, prompt="a cat", request_id="mine")
    assert (await client.create(variant=TINY, prompt="a cat", request_id="mine")).name == first.name

    with pytest.raises(AlreadyExists) as caught:
        await client.create(variant=TINY, prompt="a dog", request_id="mine")
    assert caught.value.reason is Reason.REQUEST_ID_REUSED


async def test_a_refusal_names_every_field(client: Client) -> None:
    with pytest.raises(InvalidRequest) as caught:
        await client.create(variant=TINY, prompt="", num_frames=16)

    assert [violation.field for violation in caught.value.violations] == ["parameters.prompt", "parameters.num_frames"]
    assert "such as 13 or 17" in caught.value.violations[1].description


async def test_the_key_travels_as_a_bearer_token(server: Server, gateway: MemoryGateway) -> None:
    async with Client(f"127.0.0.1:{server.port}", "wan22_secret") as client:
        await client.variants()
    assert ("authorization", "Bearer wan22_secret") in gateway.metadata


async def test_endpoint_and_key_come_from_the_environment(
    server: Server, gateway: MemoryGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WAN22_ENDPOINT", f"127.0.0.1:{server.port}")
    monkeypatch.setenv("WAN22_API_KEY", "wan22_other")
    async with Client() as client:
        names = [variant.name for variant in await client.variants()]
    assert TINY in names
    assert ("authorization", "Bearer wan22_other") in gateway.metadata


def test_an_endpoint_with_a_scheme_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="use host:port without a scheme"):
        Client("http://localhost:50051")


async def test_an_endpoint_that_never_answers_is_given_up_after_its_first_patience() -> None:
    async with Client("127.0.0.1:1", first_patience=0.5) as client:
        with pytest.raises(Unavailable, match=r"127\.0\.0\.1:1 did not answer for 0\.5 s \(.+\): start a gateway"):
            await client.variants()


async def test_a_call_survives_a_restart_of_the_gateway(gateway: MemoryGateway) -> None:
    def register(server: aio.Server) -> None:
        add_GenerationServiceServicer_to_server(gateway, server)

    async with Server([register], host="127.0.0.1", port=0) as first:
        port = first.port
        client = await Client(f"127.0.0.1:{port}", first_patience=0.1).__aenter__()
        name = (await client.create(variant=TINY, prompt="a cat")).name
    call = asyncio.create_task(client.get(name))
    async with Server([register], host="127.0.0.1", port=port):
        assert (await call).name == name
        await client.__aexit__()


async def test_a_call_that_is_not_answered_ends_at_its_deadline(gateway: MemoryGateway) -> None:
    class Silent(MemoryGateway):
        async def GetGeneration(self, request: object, context: object) -> Generation:
            return await asyncio.Future()

    def register(server: aio.Server) -> None:
        add_GenerationServiceServicer_to_server(Silent(), server)

    async with (
        Server([register], host="127.0.0.1", port=0, stop_grace=0) as server,
        Client(f"127.0.0.1:{server.port}", timeout=0.2) as client,
    ):
        with pytest.raises(DeadlineExceeded):
            await client.get("generations/x")


async def test_list_goes_through_all_pages(client: Client) -> None:
    names = [(await client.create(variant=TINY, prompt=f"cat {n}", labels={"n": str(n % 2)})).name for n in range(5)]

    assert [g.name async for g in client.list(page_size=2)] == names[::-1]
    assert [g.name async for g in client.list(labels={"n": "1"})] == [names[3], names[1]]
    assert [g.name async for g in client.list(states=[Generation.RUNNING])] == []


async def test_a_broken_watch_is_resumed_and_each_event_comes_once(client: Client, gateway: MemoryGateway) -> None:
    name = await finished(client, gateway)
    gateway.break_streams.extend([0, 3, 1, 4])

    sequences = [event.sequence async for event in client.watch(name)]

    assert sequences == list(range(1, gateway.records[name].generation.last_sequence + 1))
    assert not gateway.break_streams


async def test_a_watch_begins_after_the_given_event_and_follows_to_the_end(
    client: Client, gateway: MemoryGateway
) -> None:
    name = (await client.create(variant=TINY, prompt="a cat")).name
    events: list[GenerationEvent] = []

    async def follow() -> None:
        async for event in client.watch(name, after_sequence=1):
            events.append(event)
            if event.queue.queue_position:
                await gateway.succeed(name, VIDEO)

    await asyncio.wait_for(follow(), 20)
    assert [event.sequence for event in events] == [0, *range(2, 12)]
    assert events[-1].state_change.state == Generation.SUCCEEDED


async def test_a_watch_after_the_last_event_ends_at_once(client: Client, gateway: MemoryGateway) -> None:
    name = await finished(client, gateway)
    last = (await client.get(name)).last_sequence
    assert [event async for event in client.watch(name, after_sequence=last)] == []


async def test_a_watch_beyond_the_history_is_refused(client: Client) -> None:
    name = (await client.create(variant=TINY, prompt="a cat")).name
    with pytest.raises(OutOfRange, match="after_sequence is 7"):
        await anext(client.watch(name, after_sequence=7))


async def test_wait_returns_the_cancelled_generation(client: Client) -> None:
    name = (await client.create(variant=TINY, prompt="a cat")).name
    waiting = asyncio.create_task(client.wait(name))
    await client.cancel(name)
    assert (await asyncio.wait_for(waiting, 20)).state == Generation.CANCELLED


async def test_delete_needs_force_while_unfinished(client: Client) -> None:
    name = (await client.create(variant=TINY, prompt="a cat")).name
    with pytest.raises(FailedPrecondition) as caught:
        await client.delete(name)
    assert caught.value.reason is Reason.GENERATION_UNFINISHED

    await client.delete(name, force=True)
    with pytest.raises(NotFound):
        await client.get(name)


async def test_a_deletion_whose_answer_is_lost_succeeds_and_one_of_nothing_does_not(
    client: Client, gateway: MemoryGateway
) -> None:
    name = await finished(client, gateway)
    gateway.unavailable_answers.append("DeleteGeneration")
    await client.delete(name)
    assert not gateway.unavailable_answers
    assert name not in gateway.records
    with pytest.raises(NotFound):
        await client.delete(name)


async def test_a_broken_download_is_resumed_at_its_offset(
    client: Client, gateway: MemoryGateway, tmp_path: Path
) -> None:
    name = await finished(client, gateway)
    gateway.break_streams.extend([2, 0, 3])

    assert await client.download(name, tmp_path / "cat.mp4") == tmp_path / "cat.mp4"

    assert (tmp_path / "cat.mp4").read_bytes() == VIDEO
    assert [path.name for path in tmp_path.iterdir()] == ["cat.mp4"]
    assert not gateway.break_streams


async def test_a_download_of_other_bytes_leaves_what_was_there(
    client: Client, gateway: MemoryGateway, tmp_path: Path
) -> None:
    name = await finished(client, gateway)
    gateway.records[name].video = VIDEO[::-1]
    (tmp_path / "cat.mp4").write_bytes(b"old")

    with pytest.raises(DataLoss, match="not sha256:") as caught:
        await client.download(name, tmp_path / "cat.mp4")

    assert caught.value.reason is Reason.DIGEST_MISMATCH
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"cat.mp4": b"old"}


async def test_a_piece_that_changed_on_its_way_is_refused(tmp_path: Path) -> None:
    class Changed(MemoryGateway):
        async def DownloadVideo(self, request: object, context: object) -> AsyncIterator[VideoChunk]:
            yield VideoChunk(offset=0, data=b"changed", crc32=1)

    gateway = Changed()

    def register(server: aio.Server) -> None:
        add_GenerationServiceServicer_to_server(gateway, server)

    async with Server([register], host="127.0.0.1", port=0) as server, Client(f"127.0.0.1:{server.port}") as client:
        name = await finished(client, gateway)
        with pytest.raises(DataLoss, match=r"CRC-32 [0-9a-f]{8}, not 00000001"):
            await client.download(name, tmp_path / "cat.mp4")
    assert list(tmp_path.iterdir()) == []


async def test_a_queued_generation_has_no_video_to_download(client: Client, tmp_path: Path) -> None:
    name = (await client.create(variant=TINY, prompt="a cat")).name
    with pytest.raises(FailedPrecondition, match="is QUEUED") as caught:
        await client.download(name, tmp_path / "cat.mp4")
    assert caught.value.reason is Reason.VIDEO_NOT_READY


async def test_an_upload_repeats_from_its_start_when_the_answer_is_lost(
    client: Client, gateway: MemoryGateway, tmp_path: Path
) -> None:
    image = bytes(3_000_000)
    (tmp_path / "cat.png").write_bytes(image)
    gateway.unavailable_answers.append("UploadMedia")

    media = await client.upload_media(tmp_path / "cat.png")

    assert gateway.media == {media.name: image}
    assert (await client.upload_media(image)).name == media.name


async def test_an_image_over_the_limit_is_refused_before_it_is_sent(client: Client) -> None:
    with pytest.raises(InvalidRequest, match="has 33554433 bytes: use at most 33554432"):
        await client.upload_media(bytes((32 << 20) + 1))


async def test_estimate_resolves_without_queueing(client: Client, gateway: MemoryGateway) -> None:
    estimate = await client.estimate(variant=TINY, prompt="a cat")
    assert estimate.generation.parameters.num_frames == 17
    assert estimate.queue_position == 1
    assert gateway.records == {}


async def test_generate_uploads_creates_follows_and_downloads(
    client: Client, gateway: MemoryGateway, tmp_path: Path
) -> None:
    gateway.worker = lambda name: gateway.succeed(name, VIDEO)
    steps: list[int] = []

    generation = await client.generate(
        tmp_path / "cat.mp4",
        variant="i2v-a14b-tiny",
        prompt="a cat",
        image=b"an image",
        on_event=lambda event: steps.append(event.progress.step) if event.progress.HasField("step") else None,
    )

    assert steps == [0, 1, 2, 3, 4]
    assert generation.parameters.image in gateway.media
    assert (tmp_path / "cat.mp4").read_bytes() == VIDEO


@pytest.mark.parametrize(
    ("end", "error", "text"),
    [
        (StateChange(state=Generation.FAILED, error={"code": 15, "message": "Bytes are lost."}), DataLoss, "are lost"),
        (StateChange(state=Generation.CANCELLED), Cancelled, "was cancelled"),
    ],
)
async def test_generate_raises_how_a_generation_ended(
    client: Client, gateway: MemoryGateway, tmp_path: Path, end: StateChange, error: type[Exception], text: str
) -> None:
    gateway.worker = lambda name: gateway.records[name].append(GenerationEvent(state_change=end))
    with pytest.raises(error, match=text):
        await client.generate(tmp_path / "cat.mp4", variant=TINY, prompt="a cat")
    assert list(tmp_path.iterdir()) == []
