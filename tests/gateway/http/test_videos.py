"""/v1/videos, by the official client and by hand."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import httpx
import openai
import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st
from tests.gateway.scripted_worker import VIDEO, Place

from wan22.errors import InvalidRequest
from wan22.v1.generation_pb2 import Generation, Progress
from wan22.variants import VARIANTS
from wan22_gateway.http.openai_video import frames_of, video_job

from .paced_worker import PacedWorkerServicer
from .test_generate import picture

module = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.filterwarnings("ignore:The Sora API:DeprecationWarning"),  # the client's word on OpenAI's own service
]
VARIANT = "ti2v-5b-tiny"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def official(place: Place) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{place.http}/v1", api_key="none", max_retries=0) as client:
        yield client


async def by_official(official: openai.AsyncOpenAI, worker: PacedWorkerServicer) -> None:
    worker.go.clear()
    job = await official.videos.create(model=VARIANT, prompt="a kite", seconds="4", size="1280x704")  # type: ignore[arg-type]
    assert (job.object, job.status, job.progress, job.model) == ("video", "queued", 0, VARIANT)
    assert (job.seconds, job.size, job.prompt, job.error) == ("4", "1280x704", "a kite", None)
    async with asyncio.timeout(60):
        while (job := await official.videos.retrieve(job.id)).status == "queued":
            pass
    assert job.status == "in_progress"
    worker.go.set()
    job = await official.videos.poll(job.id, poll_interval_ms=50)
    assert (job.status, job.progress) == ("completed", 100)
    assert job.completed_at is not None
    assert job.completed_at >= job.created_at
    content = await official.videos.download_content(job.id)
    assert content.read() == VIDEO
    assert (await official.videos.delete(job.id)).deleted
    with pytest.raises(openai.NotFoundError):
        await official.videos.retrieve(job.id)


class TestByTheOfficialClient:
    pytestmark = module

    async def test_a_video_is_created_polled_downloaded_and_deleted(
        self, official: openai.AsyncOpenAI, worker: PacedWorkerServicer
    ) -> None:
        await by_official(official, worker)

    async def test_create_and_poll_waits_for_the_end(self, official: openai.AsyncOpenAI) -> None:
        job = await official.videos.create_and_poll(model=VARIANT, prompt="a kite", poll_interval_ms=50)
        usual = VARIANTS[VARIANT]
        seconds, size = f"{(usual.num_frames - 1) / usual.fps:g}", f"{usual.width}x{usual.height}"
        assert (job.status, job.seconds, job.size) == ("completed", seconds, size)

    async def test_an_image_comes_as_a_file_or_a_reference(
        self, official: openai.AsyncOpenAI, http: httpx.AsyncClient, place: Place
    ) -> None:
        data = picture((9, 9, 9))
        url = "data:image/png;base64," + base64.b64encode(data).decode()
        media = (await place.client.upload_media(data)).name
        job = await official.videos.create(model=VARIANT, prompt="x", input_reference=("a.png", data, "image/png"))
        made = [job.id]
        asked = {"model": VARIANT, "prompt": "x"}
        for reference in ({"image_url": url}, {"file_id": media}):
            answer = await http.post("/v1/videos", json={**asked, "input_reference": reference})
            made.append(answer.json()["id"])
        form = {**asked, "input_reference[file_id]": media}
        answer = await http.post("/v1/videos", files={name: (None, text) for name, text in form.items()})
        made.append(answer.json()["id"])
        for identity in made:
            assert (await place.client.get(f"generations/{identity}")).parameters.image == media
        for bad in ({"image_url": "https://example.org/a.png"}, {"image_url": url, "file_id": media}, {}):
            answer = await http.post("/v1/videos", json={**asked, "input_reference": bad})
            assert (answer.status_code, answer.json()["error"]["param"]) == (400, "input_reference")

    async def test_pages_follow_each_other_in_both_orders(self, official: openai.AsyncOpenAI) -> None:
        made = [(await official.videos.create(model=VARIANT, prompt=f"number {n}")).id for n in range(5)]
        newest = [job.id async for job in official.videos.list(limit=2)]
        oldest = [job.id async for job in official.videos.list(limit=2, order="asc")]
        assert newest[:5] == made[::-1]
        assert oldest == newest[::-1]
        assert len(set(newest)) == len(newest)
        behind = await official.videos.list(after=made[2], limit=1)
        assert ([job.id for job in behind.data], behind.has_more) == ([made[1]], True)

    async def test_errors_are_the_clients_own_with_the_parameter_named(self, official: openai.AsyncOpenAI) -> None:
        bad: list[tuple[dict[str, Any], str | None]] = [
            ({"seconds": "4.1"}, "seconds"),
            ({"seconds": "40"}, "seconds"),
            ({"seconds": "long"}, "seconds"),
            ({"seconds": "1e9999999"}, "seconds"),
            ({"size": "1280x721"}, "size"),
            ({"size": "big"}, "size"),
            ({"prompt": " "}, "prompt"),
            ({"input_reference": ("a.png", b"no image")}, "input_reference"),
            ({"extra_body": {"quality": "best"}}, "quality"),
        ]
        for more, param in bad:
            with pytest.raises(openai.BadRequestError) as caught:
                await official.videos.create(**{"model": VARIANT, "prompt": "x", **more})
            assert (caught.value.param, caught.value.type) == (param, "invalid_request_error"), more
        with pytest.raises(openai.NotFoundError) as unknown:
            await official.videos.create(model="sora-2", prompt="x")
        assert (unknown.value.code, VARIANT in unknown.value.message) == ("variant_not_served", True)

    async def test_what_is_unfinished_has_no_content_and_is_not_deleted(
        self, official: openai.AsyncOpenAI, worker: PacedWorkerServicer, http: httpx.AsyncClient
    ) -> None:
        worker.go.clear()
        job = await official.videos.create(model=VARIANT, prompt="x")
        with pytest.raises(openai.ConflictError) as early:
            await official.videos.download_content(job.id)
        assert early.value.code == "video_not_ready"
        with pytest.raises(openai.ConflictError):
            await official.videos.delete(job.id)
        with pytest.raises(openai.BadRequestError):
            await official.videos.download_content(job.id, variant="thumbnail")
        assert (await http.post(f"/generations/{job.id}/cancel")).status_code == 200
        ended = await official.videos.poll(job.id, poll_interval_ms=50)
        worker.go.set()
        assert ended.error is not None
        assert (ended.status, ended.error.code) == ("failed", "cancelled")

    async def test_content_comes_in_parts(self, http: httpx.AsyncClient, official: openai.AsyncOpenAI) -> None:
        job = await official.videos.create_and_poll(model=VARIANT, prompt="x", poll_interval_ms=50)
        part = await http.get(f"/v1/videos/{job.id}/content", headers={"Range": "bytes=3-8"})
        assert (part.status_code, part.content) == (206, VIDEO[3:9])


@given(st.sampled_from([16, 24]), st.integers(0, 60))
def test_seconds_are_exactly_what_lies_between_the_first_and_the_last_frame(fps: int, n: int) -> None:
    seconds = Decimal(4 * n) / fps
    if seconds == seconds.quantize(Decimal("0.0001")):
        assert frames_of(str(seconds), fps) == 4 * n + 1
    job = Generation(variant="ti2v-5b", state=Generation.QUEUED)
    job.parameters.num_frames, job.parameters.fps = 4 * n + 1, fps
    assert float(video_job(job).seconds) == pytest.approx(float(seconds), rel=1e-5)


@given(st.sampled_from([16, 24]), st.decimals(0, 30, places=3))
def test_seconds_between_frames_are_refused_with_the_nearest_that_are_not(fps: int, seconds: Decimal) -> None:
    if seconds * fps % 4 == 0:
        assert frames_of(str(seconds), fps) == seconds * fps + 1
        return
    with pytest.raises(InvalidRequest, match=r"such as ([\d.]+) or ([\d.]+)\.$") as caught:
        frames_of(str(seconds), fps)
    lower, upper = caught.value.message.removesuffix(".").rpartition("such as ")[2].split(" or ")
    assert float(lower) < seconds < float(upper)


def test_every_variants_whole_seconds_are_served() -> None:
    for variant in VARIANTS.values():
        longest = (variant.max_frames - 1) // variant.fps
        assert longest >= 10
        for seconds in range(1, longest + 1):
            assert frames_of(seconds, variant.fps) % 4 == 1
            assert frames_of(seconds, variant.fps) <= variant.max_frames


def test_progress_rises_over_the_stages() -> None:
    job = Generation(variant="ti2v-5b", state=Generation.RUNNING)
    job.parameters.num_frames, job.parameters.fps = 5, 24
    seen = []
    stages: list[tuple[Any, int]] = [
        (Progress.ENCODING_TEXT, 0),
        (Progress.ENCODING_IMAGE, 0),
        *((Progress.DENOISING, step) for step in range(41)),
        (Progress.DECODING, 0),
        (Progress.STORING, 0),
    ]
    for stage, step in stages:
        job.progress.CopyFrom(Progress(stage=stage, step=step, num_steps=40))
        seen.append(video_job(job).progress)
    assert seen == sorted(seen)
    assert (seen[0], seen[-1]) == (0, 99)
