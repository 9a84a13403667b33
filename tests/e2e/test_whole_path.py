"""A prompt in at the gateway, an MP4 out, over real processes."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import av
import grpc
import pytest
import pytest_asyncio

from wan22.channels import open_channel
from wan22.client import Client, ParameterOptions
from wan22.errors import AlreadyExists, FailedPrecondition, InvalidRequest, NotFound, Reason
from wan22.previews import webp_size
from wan22.status import from_status
from wan22.v1 import generation_pb2, generation_pb2_grpc, inference_pb2, pool_pb2, pool_pb2_grpc
from wan22.v1.generation_pb2 import Generation
from wan22_testing.installation import Installation, pool_name
from wan22_testing.tiny_models import shared_folder
from wan22_testing.wan22_command import Wan22Command

pytestmark = pytest.mark.asyncio(loop_scope="module")
T2V = "t2v-a14b-tiny"
PROMPT = "a red circle moves right"
SLOW: ParameterOptions = {"num_inference_steps": 100, "num_frames": 33}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def installation(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Installation]:
    async with Installation(tmp_path_factory.mktemp("whole_path"), reflection=True) as running:
        for variant in (T2V, "i2v-a14b-tiny", "ti2v-5b-tiny"):
            await running.push(variant, shared_folder(variant))
        await running.serve(T2V, "t1")
        await running.serve("i2v-a14b-tiny", "i1")
        await running.serve("ti2v-5b-tiny")  # no worker yet
        await running.start_workers("t1", "i1")
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def client(installation: Installation) -> AsyncIterator[Client]:
    async with installation.client() as opened:
        yield opened


def frames_of(path: Path) -> list[av.VideoFrame]:
    with av.open(str(path)) as container:
        return list(container.decode(video=0))


async def test_a_prompt_becomes_an_mp4_that_plays(client: Client, tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    done = await client.generate(path, variant=T2V, prompt=PROMPT, seed=7)
    assert done.state == Generation.SUCCEEDED
    assert done.parameters.seed == 7
    assert done.parameters.num_inference_steps == 20
    assert path.stat().st_size == done.video.size_bytes
    assert "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest() == done.video.digest
    frames = frames_of(path)
    assert (len(frames), frames[0].width, frames[0].height) == (17, 128, 128)


async def test_the_same_seed_gives_the_same_bytes_and_another_seed_does_not(client: Client, tmp_path: Path) -> None:
    digests = []
    for seed in (7, 7, 8):
        done = await client.generate(tmp_path / "again.mp4", variant=T2V, prompt=PROMPT, seed=seed)
        digests.append(done.video.digest)
    assert digests[0] == digests[1] != digests[2]


async def test_previews_are_seen_while_it_runs_and_the_video_is_the_one_without_them(
    client: Client, tmp_path: Path
) -> None:
    seen: list[generation_pb2.GenerationEvent] = []
    digests = []
    for interval in (0, 3):
        done = await client.generate(
            tmp_path / "previewed.mp4",
            variant=T2V,
            prompt=PROMPT,
            seed=7,
            num_inference_steps=9,
            preview_interval=interval,
            on_event=seen.append,
        )
        digests.append(done.video.digest)
    assert digests[0] == digests[1]
    previews = [event.preview for event in seen if event.HasField("preview")]
    assert previews
    assert {(preview.step, preview.num_steps) for preview in previews} <= {(3, 9), (6, 9)}
    assert {webp_size(preview.image) for preview in previews} == {(16, 16)}


async def test_an_image_becomes_the_start_of_a_video_of_its_aspect(client: Client, tmp_path: Path) -> None:
    from PIL import Image

    image = tmp_path / "start.jpg"
    Image.new("RGB", (200, 100), (200, 40, 40)).save(image)
    media = await client.upload_media(image)
    assert (media.width, media.height) == (200, 100)
    done = await client.generate(
        tmp_path / "i2v.mp4", variant="i2v-a14b-tiny", prompt=PROMPT, image=image, last_image=image
    )
    assert (done.parameters.width, done.parameters.height) == (176, 80)
    assert (frames_of(tmp_path / "i2v.mp4")[0].width, len(frames_of(tmp_path / "i2v.mp4"))) == (176, 17)


async def test_a_repeated_request_id_makes_one_generation(client: Client) -> None:
    made = [await client.create(variant=T2V, prompt=PROMPT, request_id="twice") for _ in range(2)]
    assert made[0].name == made[1].name
    assert made[0].parameters.seed == made[1].parameters.seed


async def test_a_watch_resumed_in_the_middle_sees_each_event_once(client: Client) -> None:
    name = (await client.create(variant=T2V, prompt=PROMPT, **SLOW)).name
    seen: list[generation_pb2.GenerationEvent] = []
    while True:
        after = seen[-1].sequence if seen else 0
        part = client.watch(name, after_sequence=after)
        async for event in part:
            if event.sequence:
                seen.append(event)
                if len(seen) % 3 == 0:
                    break  # the connection is given up in the middle
        await part.aclose()  # type: ignore[attr-defined]  # an async generator, typed as an iterator
        if seen[-1].WhichOneof("event") == "state_change" and seen[-1].state_change.state == Generation.SUCCEEDED:
            break
    assert [event.sequence for event in seen] == list(range(1, len(seen) + 1))
    assert [event.state_change.state for event in seen if event.HasField("state_change")] == [
        Generation.QUEUED,
        Generation.RUNNING,
        Generation.SUCCEEDED,
    ]
    stages = [event.progress.stage for event in seen if event.HasField("progress")]
    assert stages == sorted(stages)
    assert stages[-1] == generation_pb2.Progress.STORING


async def test_cancel_while_denoising_frees_the_worker(client: Client) -> None:
    name = (await client.create(variant=T2V, prompt=PROMPT, **SLOW)).name
    async for event in client.watch(name):
        if event.progress.stage == generation_pb2.Progress.DENOISING:
            await client.cancel(name)
            break
    ended = await client.wait(name)
    assert ended.state == Generation.CANCELLED
    assert ended.HasField("cancel_requested_time")
    with pytest.raises(FailedPrecondition, match="is CANCELLED"):
        await client.download(name, Path("unused.mp4"))
    again = await client.cancel(name)  # after the end: nothing changes
    assert again == ended


async def test_cancel_while_queued_is_final_at_once(client: Client) -> None:
    held = [await client.create(variant=T2V, prompt=PROMPT, **SLOW) for _ in range(2)]  # one runs, one is prepared
    queued = await client.create(variant=T2V, prompt=PROMPT)
    assert queued.state == Generation.QUEUED
    assert (await client.cancel(queued.name)).state == Generation.CANCELLED
    for generation in held:
        await client.cancel(generation.name)
        assert (await client.wait(generation.name)).state == Generation.CANCELLED


async def test_a_client_that_vanishes_loses_nothing(installation: Installation, client: Client) -> None:
    channel = open_channel(installation.gateway.address)
    stub = generation_pb2_grpc.GenerationServiceStub(channel)
    wanted = Generation(variant=T2V, parameters=generation_pb2.Parameters(prompt=PROMPT))
    made = await stub.CreateGeneration(generation_pb2.CreateGenerationRequest(generation=wanted))
    watching = stub.WatchGeneration(generation_pb2.WatchGenerationRequest(name=made.name))
    await watching.read()
    await channel.close(grace=None)
    assert (await client.wait(made.name)).state == Generation.SUCCEEDED


async def test_a_variant_without_a_worker_is_served_and_says_what_it_waits_for(client: Client) -> None:
    made = await client.create(variant="ti2v-5b-tiny", prompt=PROMPT)
    assert made.state == Generation.QUEUED
    assert made.waiting_for == "a worker: none of pools/test.ti2v-5b-tiny answers yet"
    assert made.queue_position == 1
    await client.cancel(made.name)


async def test_a_huge_value_is_refused_in_a_text_that_arrives(client: Client) -> None:
    with pytest.raises(InvalidRequest, match="is '生生"):
        await client.get("生" * 100_000)
    with pytest.raises(NotFound, match="is not served here"):
        await client.create(variant="x" * 1000, prompt=PROMPT)


async def test_an_unknown_variant_is_not_found_and_the_served_ones_are_listed(client: Client) -> None:
    with pytest.raises(NotFound, match="i2v-a14b-tiny, t2v-a14b-tiny, ti2v-5b-tiny") as caught:
        await client.create(variant="s2v-14b", prompt=PROMPT)
    assert caught.value.reason is Reason.VARIANT_NOT_SERVED


async def test_a_prompt_of_too_many_tokens_is_refused_with_its_length(client: Client) -> None:
    with pytest.raises(InvalidRequest) as caught:
        await client.create(variant=T2V, prompt="red circle " * 600)
    (violation,) = caught.value.violations
    assert violation.field == "parameters.prompt"
    assert "use at most 512" in violation.description


async def test_a_prompt_that_may_be_cut_is_cut_and_it_is_said(client: Client, tmp_path: Path) -> None:
    long = "red circle " * 600
    cut = await client.generate(tmp_path / "cut.mp4", variant=T2V, prompt=long, seed=3, cut_prompt=True)
    assert cut.state == Generation.SUCCEEDED
    assert dict(cut.cut_texts) == {"prompt": 1201}
    assert cut.parameters.prompt == long
    short = await client.create(variant=T2V, prompt=PROMPT, cut_prompt=True)
    assert dict(short.cut_texts) == {}


async def test_a_count_makes_as_many_with_the_seeds_that_follow(client: Client, tmp_path: Path) -> None:
    first = await client.create(variant=T2V, prompt=PROMPT, seed=40, count=3, request_id="three", num_inference_steps=2)
    assert len(first.siblings) == 3
    assert first.siblings[0] == first.name
    done = [await client.wait(name) for name in first.siblings]
    assert [generation.parameters.seed for generation in done] == [40, 41, 42]
    assert len({generation.video.digest for generation in done}) == 3
    alone = await client.wait((await client.create(variant=T2V, prompt=PROMPT, seed=41, num_inference_steps=2)).name)
    assert alone.video.digest == done[1].video.digest
    assert list(alone.siblings) == []
    again = await client.create(variant=T2V, prompt=PROMPT, seed=40, count=3, request_id="three", num_inference_steps=2)
    assert again.name == first.name
    with pytest.raises(AlreadyExists):
        await client.create(variant=T2V, prompt=PROMPT, seed=40, count=2, request_id="three", num_inference_steps=2)


@pytest.mark.parametrize(("count", "seed"), [(5, 0), (-1, 0), (2, 2**63 - 1)])
async def test_an_impossible_count_is_refused(client: Client, count: int, seed: int) -> None:
    with pytest.raises(InvalidRequest):
        await client.create(variant=T2V, prompt=PROMPT, seed=seed, count=count)


async def test_turbo_needs_distilled_weights(installation: Installation, client: Client, tmp_path: Path) -> None:
    with pytest.raises(FailedPrecondition, match="not distilled") as caught:
        await client.create(variant=T2V, prompt=PROMPT, profile="TURBO")
    assert caught.value.reason is Reason.PROFILE_NOT_SERVED
    await installation.serve(T2V, "t1", pool="pools/test.turbo", distilled=True)
    made = await client.create(variant=T2V, pool="pools/test.turbo", prompt=PROMPT, profile="TURBO")
    assert (made.parameters.num_inference_steps, made.parameters.flow_shift) == (4, 5.0)
    with pytest.raises(FailedPrecondition, match="are distilled"):
        await client.create(variant=T2V, pool="pools/test.turbo", prompt=PROMPT)
    await client.delete(made.name, force=True)


async def test_a_file_that_is_no_image_is_refused_and_the_gateway_goes_on(client: Client) -> None:
    for bad in (b"no image", b"\x89PNG\r\n\x1a\n" + b"\0" * 100, b""):
        with pytest.raises(InvalidRequest) as caught:
            await client.upload_media(bad)
        assert caught.value.reason is Reason.MEDIA_UNREADABLE
    assert [variant.name for variant in await client.variants()] == [
        "i2v-a14b-tiny",
        "t2v-a14b-tiny",
        "ti2v-5b-tiny",
    ]


async def test_a_deleted_generation_is_gone_with_its_video(
    installation: Installation, client: Client, tmp_path: Path
) -> None:
    done = await client.generate(tmp_path / "gone.mp4", variant=T2V, prompt=PROMPT)
    stored = list((installation.folder / "videos").glob(f"videos/{done.name.removeprefix('generations/')}/*.mp4"))
    assert len(stored) == 1
    await client.delete(done.name)
    with pytest.raises(NotFound):
        await client.get(done.name)
    async with asyncio.timeout(60):
        while stored[0].exists():  # noqa: ASYNC110  # the object goes after the row, in another process
            await asyncio.sleep(0.05)


async def test_lists_come_in_pages_and_by_label(client: Client) -> None:
    made = [
        (await client.create(variant=T2V, prompt=PROMPT, labels={"batch": "pages", "n": str(n)})).name for n in range(5)
    ]
    found = [generation.name async for generation in client.list(labels={"batch": "pages"}, page_size=2)]
    assert found == made[::-1]
    (one,) = [g.name async for g in client.list(labels={"batch": "pages", "n": "3"})]
    assert one == made[3]
    for name in made:
        await client.delete(name, force=True)


async def test_a_pool_reports_its_demand_and_a_drained_worker_gets_nothing(
    installation: Installation, client: Client
) -> None:
    async with open_channel(installation.gateway.address) as channel:
        pools = pool_pb2_grpc.PoolServiceStub(channel)
        await pools.DrainWorker(pool_pb2.DrainWorkerRequest(name="workers/t1"))
        made = await client.create(variant=T2V, prompt=PROMPT)
        pool = await pools.GetPool(pool_pb2.GetPoolRequest(name=pool_name(T2V)))
        assert [bucket.count for bucket in pool.demand.queued] == [1]
        assert pool.demand.queued[0].predicted_seconds == pytest.approx(made.predicted_seconds)
        assert pool.demand.complete
        assert pool.demand.arrivals_60s >= 1
        (worker,) = pool.workers
        assert worker.alive
        assert worker.HasField("drain_expire_time")
        await pools.UndrainWorker(pool_pb2.UndrainWorkerRequest(name="workers/t1"))
        assert (await client.wait(made.name)).state == Generation.SUCCEEDED
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await pools.DrainWorker(pool_pb2.DrainWorkerRequest(name="workers/nobody"))
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_a_video_is_made_again_from_the_recipe_in_it(
    installation: Installation, client: Client, tmp_path: Path
) -> None:
    command = Wan22Command(tmp_path, WAN22_ENDPOINT=client.endpoint)
    done = await client.generate(tmp_path / "shown.mp4", variant=T2V, prompt=PROMPT)
    hidden = await client.generate(tmp_path / "hidden.mp4", variant=T2V, prompt=PROMPT, omit_prompt=True)
    result = await command("replay", "shown.mp4", "-o", "again.mp4")
    assert (result.exit_code, result.out) == (0, "The same bytes.\n"), result.err
    assert (tmp_path / "again.mp4").read_bytes() == (tmp_path / "shown.mp4").read_bytes()
    assert PROMPT.encode() in (tmp_path / "shown.mp4").read_bytes()
    assert PROMPT.encode() not in (tmp_path / "hidden.mp4").read_bytes()
    assert "has no prompt" in (await command("replay", "hidden.mp4")).err
    recipe = await command("generations", "recipe", hidden.name)
    (tmp_path / "whole.json").write_text(recipe.out)
    result = await command("replay", "hidden.mp4", "--recipe", "whole.json", "--json")
    assert result.exit_code == 0, result.err
    assert {"same": True, "differences": []}.items() <= result.json().items()
    assert (await client.recipe(done.name)).parameters["seed"] == done.parameters.seed


async def test_no_log_holds_a_prompt(installation: Installation, client: Client, tmp_path: Path) -> None:
    marker = "an unmistakable walrus"
    await client.generate(tmp_path / "out.mp4", variant=T2V, prompt=marker, negative_prompt=f"not {marker}")
    logs = list(installation.folder.glob("*.log"))
    assert {log.stem for log in logs} >= {"gateway", "registry", "t1"}
    assert [log for log in logs if marker in log.read_text()] == []


async def test_what_does_not_fit_into_memory_is_said_before_it_is_queued(
    installation: Installation, client: Client
) -> None:
    small = "pools/test.small"
    await installation.serve(T2V, "small", pool=small, vram_limit=1100 << 20)
    await installation.start_workers("small")
    async with asyncio.timeout(60):
        async for pool in pool_states(installation, small):
            if [worker.state for worker in pool.workers] == [inference_pb2.Worker.IDLE]:
                break
    work: ParameterOptions = {"seed": 5, "num_frames": 5}
    fitting = await client.estimate(variant=T2V, prompt=PROMPT, pool=small, **work)
    assert fitting.fits
    assert 0 < fitting.peak_bytes <= 1100 << 20
    unknown = await client.estimate(variant=T2V, prompt=PROMPT, **work)
    assert not unknown.HasField("fits")  # nothing bounds the other pool's memory
    huge: ParameterOptions = {"width": 1024, "height": 1024, "num_frames": 161}
    estimate = await client.estimate(variant=T2V, prompt=PROMPT, pool=small, **huge)
    assert not estimate.fits
    assert "fit" in estimate.advice
    with pytest.raises(FailedPrecondition, match="device memory, and no worker") as caught:
        await client.create(variant=T2V, prompt=PROMPT, pool=small, **huge)
    assert caught.value.reason is Reason.OUT_OF_MEMORY
    streamed = await client.wait((await client.create(variant=T2V, prompt=PROMPT, pool=small, **work)).name)
    plain = await client.wait((await client.create(variant=T2V, prompt=PROMPT, **work)).name)
    assert streamed.video.digest == plain.video.digest  # blocks in host memory change no bits


async def pool_states(installation: Installation, name: str) -> AsyncIterator[pool_pb2.Pool]:
    async with open_channel(installation.gateway.address) as channel:
        watch = pool_pb2_grpc.PoolServiceStub(channel).WatchPools(pool_pb2.WatchPoolsRequest())
        async for answer in watch:
            for pool in answer.pools:
                if pool.name == name:
                    yield pool


async def test_priority_and_deadline_go_all_the_way(installation: Installation, client: Client, tmp_path: Path) -> None:
    command = Wan22Command(tmp_path, WAN22_ENDPOINT=client.endpoint)
    made = await command(
        "generate", PROMPT, "-o", "high.mp4", "--variant", T2V, "--priority", "high", "--within", "100", "--json"
    )
    assert made.exit_code == 0, made.err
    assert made.json()["priority"] == "HIGH"
    shown = await client.get(made.json()["name"])
    assert shown.deadline.ToMicroseconds() - shown.create_time.ToMicroseconds() == pytest.approx(100e6, abs=5e6)
    long: ParameterOptions = {"num_inference_steps": 100, "num_frames": 161}
    try:  # refused where this pool's speed is known well enough by now, else stopped when its time is over
        slow = await client.create(variant=T2V, prompt=PROMPT, finish_within=2.0, **long)
        reason = from_status((await client.wait(slow.name)).error).reason
    except FailedPrecondition as error:
        reason = error.reason
    assert reason is Reason.DEADLINE_MISSED
    after = await client.generate(tmp_path / "after.mp4", variant=T2V, prompt=PROMPT)  # its worker is free again
    assert after.state == Generation.SUCCEEDED
