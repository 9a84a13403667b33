"""Exact-result reuse over a real gateway: when an earlier video answers, and when it must not."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from PIL import Image

from wan22.client import Client
from wan22.errors import InvalidRequest, NotFound, ResourceExhausted, Wan22Error
from wan22.parameter_messages import complete_from_message
from wan22.recipe import Recipe, numerics_digest
from wan22.v1.generation_pb2 import Economy, Generation, Progress
from wan22.v1.inference_pb2 import GenerateEvent
from wan22_gateway.identity.keys import new_secret

from .scripted_worker import (
    DIGEST,
    T2V,
    VIDEO,
    ScriptedWorkerServicer,
    Start,
    accepted,
    chunk,
    finished,
    gateway_with,
    until,
    until_refused,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")
CARD, OTHER_CARD = {"card": "A"}, {"card": "B"}
ALICE, BOB, OPERATOR = new_secret(), new_secret(), new_secret()


class Worker(ScriptedWorkerServicer):
    """Makes videos whose recipe names its numerics."""

    def __init__(self) -> None:
        super().__init__()
        self.card = CARD
        self.economy = False

    @property
    def numerics(self) -> str:
        return numerics_digest(self.card)

    @numerics.setter
    def numerics(self, _: str) -> None:
        """The card says it."""

    def whole(self, start: Start) -> Sequence[GenerateEvent | Wan22Error]:
        end = finished()
        made = Recipe.make(T2V, start.model_version, complete_from_message(start.parameters), self.card)
        end.finished.recipe = made.to_json()
        short = Progress(stage=Progress.DECODING, economy=Economy(decode_tile=32))
        told = [GenerateEvent(progress=short)] if self.economy else []
        pieces = [chunk(offset) for offset in range(start.video_offset, len(VIDEO), 1 << 20)]
        return [accepted(start), *told, *pieces, end]


@dataclass(frozen=True)
class Place:
    worker: Worker
    alice: Client
    bob: Client
    folder: Path

    async def make(self, **options: Any) -> Generation:
        """One that a worker makes."""
        self.worker._scripts = [self.worker.whole]
        done = await self.alice.wait((await self.alice.create(**{"variant": T2V, "prompt": "p", **options})).name)
        assert (done.state, done.reused_from) == (Generation.SUCCEEDED, "")
        return done

    async def again(self, client: Client | None = None, **options: Any) -> Generation:
        """What the same request with `reuse` gives at once; what is queued instead is taken away again."""
        self.worker._scripts = [self.worker.whole]
        wanted = {"variant": T2V, "prompt": "p", "reuse": True, **options}
        got = await (client or self.alice).create(**wanted)
        if got.state != Generation.SUCCEEDED:
            assert got.reused_from == ""
            await (client or self.alice).wait(got.name)
        return got


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def place(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Place]:
    folder = tmp_path_factory.mktemp("reuse")
    tenants = {
        "tenants": [{"name": "alice"}, {"name": "bob"}],
        "keys": [
            {"tenant": "alice", "roles": ["user"], "key": ALICE},
            {"tenant": "bob", "roles": ["user"], "key": BOB},
            {"tenant": "bob", "roles": ["operator"], "key": OPERATOR},
        ],
    }
    (folder / "tenants.json").write_text(json.dumps(tenants))
    terms: dict[str, Any] = {"auth": "on", "tenants_file": folder / "tenants.json", "api_key": OPERATOR}
    worker = Worker()
    async with (
        gateway_with(folder, worker, **terms) as client,
        Client(client.endpoint, ALICE) as alice,
        Client(client.endpoint, BOB) as bob,
    ):
        yield Place(worker, alice, bob, folder)


async def test_the_same_again_is_answered_at_once_by_the_same_object_and_costs_nothing(
    place: Place, tmp_path: Path
) -> None:
    done = await place.make(seed=1)
    (before,) = await place.alice.usage(1)
    got = await place.again(seed=1, labels={"k": "v"})
    assert (got.state, got.reused_from, got.attempt_count) == (Generation.SUCCEEDED, done.name, 0)
    assert (got.video.digest, got.video.size_bytes) == (DIGEST, len(VIDEO))
    assert got.labels == {"k": "v"}
    events = [event async for event in place.alice.watch(got.name)]
    assert [(event.sequence, event.state_change.state) for event in events] == [(1, Generation.SUCCEEDED)]
    assert events[0].state_change.video == got.video
    (after,) = await place.alice.usage(1)
    assert (after.gpu_seconds, after.videos, after.video_bytes) == (
        before.gpu_seconds,
        before.videos,
        before.video_bytes,
    )
    assert (after.generations, after.succeeded, after.reused) == (
        before.generations + 1,
        before.succeeded + 1,
        before.reused + 1,
    )
    third = await place.again(seed=1)
    assert third.reused_from == done.name  # what made it, not what was answered by it
    await place.alice.delete(done.name)
    await place.alice.delete(third.name)
    await place.alice.download(got.name, tmp_path / "still.mp4")
    assert (await place.alice.recipe(got.name)).numerics == CARD
    await place.alice.delete(got.name)
    uuid = done.name.removeprefix("generations/")

    async def is_collected() -> bool:
        return not (place.folder / "videos" / "videos" / uuid).exists()

    async with asyncio.timeout(60):
        await until(is_collected)


@pytest.mark.parametrize(
    "change", [{"seed": 3}, {"prompt": "q"}, {"negative_prompt": ""}, {"fps": 9}, {"omit_prompt": True}]
)
async def test_anything_else_is_made_anew(place: Place, change: dict[str, Any]) -> None:
    await place.make(seed=2)
    assert (await place.again(**{"seed": 2, **change})).state == Generation.QUEUED


async def test_no_other_tenants_video_answers(place: Place) -> None:
    await place.make(seed=4)
    assert (await place.again(place.bob, seed=4)).state == Generation.QUEUED


async def test_an_image_is_kept_once_for_each_tenant_that_has_it(place: Place) -> None:
    data = io.BytesIO()
    Image.new("RGB", (64, 64), (9, 9, 9)).save(data, "PNG")
    for _ in range(2):
        names = {(await client.upload_media(data.getvalue())).name for client in (place.alice, place.bob)}
        assert len(names) == 1
    for tenant in ("alice", "bob"):
        assert len(list((place.folder / "videos" / "media" / tenant).iterdir())) == 1


async def test_without_being_asked_for_nothing_is_reused(place: Place) -> None:
    await place.make(seed=5)
    assert (await place.again(seed=5, reuse=False)).state == Generation.QUEUED


async def test_a_drawn_seed_has_no_earlier_video(place: Place) -> None:
    with pytest.raises(InvalidRequest, match="reuse is set, but no seed is given") as caught:
        await place.alice.create(variant=T2V, prompt="p", reuse=True)
    assert [violation.field for violation in caught.value.violations] == ["reuse"]


async def test_a_video_that_was_deleted_or_made_in_less_memory_does_not_answer(place: Place) -> None:
    done = await place.make(seed=6)
    await place.alice.delete(done.name)
    assert (await place.again(seed=6)).state == Generation.QUEUED
    place.worker.economy = True
    await place.make(seed=7)
    place.worker.economy = False
    assert (await place.again(seed=7)).state == Generation.QUEUED


async def test_one_whose_time_is_over_does_not_answer(place: Place) -> None:
    done = await place.make(seed=8, keep_for=1)
    assert isinstance(await until_refused(lambda: place.alice.recipe(done.name)), NotFound)
    assert (await place.again(seed=8)).state == Generation.QUEUED


async def test_each_answer_has_a_time_of_its_own(place: Place) -> None:
    done = await place.make(seed=9)
    got = await place.again(seed=9, keep_for=60)
    assert not done.video.HasField("expire_time")
    assert got.video.expire_time.ToMicroseconds() - got.end_time.ToMicroseconds() == 60_000_000


async def test_of_several_seeds_only_those_that_were_made_are_answered(place: Place) -> None:
    done = await place.make(seed=11)
    first = await place.alice.create(variant=T2V, prompt="p", seed=10, count=2, reuse=True)
    place.worker._scripts = [place.worker.whole]
    assert first.state == Generation.QUEUED
    second = await place.alice.get(first.siblings[1])
    assert (second.state, second.reused_from) == (Generation.SUCCEEDED, done.name)
    assert (await place.alice.wait(first.name)).state == Generation.SUCCEEDED


async def test_a_repeated_request_id_gives_the_same_answer(place: Place) -> None:
    await place.make(seed=12)
    first = await place.again(seed=12, request_id="twice")
    assert (await place.again(seed=12, request_id="twice")).name == first.name


async def test_an_answer_needs_no_place_in_the_queue(tmp_path: Path) -> None:
    worker = Worker()
    async with asyncio.timeout(60), gateway_with(tmp_path, worker, queue_limit=1) as client:
        alone = Place(worker, client, client, tmp_path)
        done = await alone.make(seed=1)
        worker._scripts = [lambda _: []] * 1000  # makes nothing any more
        refused = await until_refused(lambda: client.create(variant=T2V, prompt="q"))
        assert isinstance(refused, ResourceExhausted)
        assert (await client.create(variant=T2V, prompt="p", seed=1, reuse=True)).reused_from == done.name


async def test_only_numerics_that_a_present_worker_has_answer(tmp_path: Path) -> None:
    worker = Worker()
    async with asyncio.timeout(60), gateway_with(tmp_path, worker) as client:
        alone = Place(worker, client, client, tmp_path)
        done = await alone.make(seed=1)
        worker.card = OTHER_CARD

        async def is_made_anew() -> bool:  # once the gateway has asked the worker again
            return (await alone.again(seed=1)).reused_from != done.name

        await until(is_made_anew)
        second = await alone.again(seed=1)
        assert (second.state, (await client.recipe(second.name)).numerics) == (Generation.SUCCEEDED, OTHER_CARD)


async def test_the_same_image_is_the_same_input(tmp_path: Path) -> None:
    worker = Worker()
    async with asyncio.timeout(60), gateway_with(tmp_path, worker, "i2v-a14b-tiny") as client:
        alone = Place(worker, client, client, tmp_path)
        names = []
        for colour in ((1, 2, 3), (1, 2, 3), (3, 2, 1)):
            data = io.BytesIO()
            Image.new("RGB", (64, 64), colour).save(data, "PNG")
            names.append((await client.upload_media(data.getvalue())).name)
        assert names[0] == names[1] != names[2]
        assert len(list((tmp_path / "videos" / "media" / "default").iterdir())) == 2  # kept once a tenant
        done = await alone.make(variant="i2v-a14b-tiny", image=names[0], seed=1)
        same = await alone.again(variant="i2v-a14b-tiny", image=names[1], seed=1)
        assert same.reused_from == done.name
        assert (await alone.again(variant="i2v-a14b-tiny", image=names[2], seed=1)).state == Generation.QUEUED
