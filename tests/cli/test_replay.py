from __future__ import annotations

import asyncio
import hashlib
import signal
from pathlib import Path
from typing import Any

import pytest

from wan22.mp4_boxes import append_boxes
from wan22.recipe import Recipe
from wan22.v1.generation_pb2 import Generation
from wan22_testing.memory_gateway_servicer import MemoryGateway
from wan22_testing.wan22_command import Wan22Command

VARIANT = "t2v-a14b-tiny"
PARAMETERS: dict[str, Any] = {"prompt": "a cat", "seed": 7, "solver": "UNIPC", "negative_prompt": "dogs"}


def make_file(folder: Path, recipe: Recipe, name: str = "old.mp4") -> bytes:
    """No video, but boxes as in one."""
    path = folder / name
    path.write_bytes(b"\x00\x00\x00\x10ftypisom\x00\x00\x02\x00")
    append_boxes(path, recipe)
    return path.read_bytes()


def serve_video(gateway: MemoryGateway, video: bytes) -> None:
    async def worker(name: str) -> None:
        await gateway.succeed(name, video)

    gateway.worker = worker


@pytest.fixture
def recipe() -> Recipe:
    return Recipe(VARIANT, "", PARAMETERS, {})


async def test_equal_bytes_are_told_and_end_with_0(wan22: Wan22Command, gateway: MemoryGateway, recipe: Recipe) -> None:
    serve_video(gateway, make_file(wan22.folder, recipe))
    result = await wan22("replay", "old.mp4")
    assert (result.exit_code, result.out) == (0, "The same bytes.\n")
    (record,) = gateway.records.values()
    assert record.generation.parameters.seed == 7
    assert record.generation.parameters.negative_prompt == "dogs"


async def test_other_bytes_end_with_1_and_what_differs(
    wan22: Wan22Command, gateway: MemoryGateway, recipe: Recipe
) -> None:
    make_file(wan22.folder, Recipe(VARIANT, "", PARAMETERS, {"library torch": "1.0"}))
    other = make_file(wan22.folder, recipe, "other.mp4") + b"\x00\x00\x00\x08mdat"
    serve_video(gateway, other)
    result = await wan22("replay", "old.mp4", "-o", "new.mp4")
    assert (result.exit_code, result.out) == (1, "Other bytes.\n")
    assert "library torch was 1.0, is absent" in result.err
    assert (wan22.folder / "new.mp4").read_bytes() == other
    make_file(wan22.folder, recipe)
    assert "The numerics are equal" in (await wan22("replay", "old.mp4")).err


async def test_ctrl_c_cancels_what_it_was_making(wan22: Wan22Command, gateway: MemoryGateway, recipe: Recipe) -> None:
    make_file(wan22.folder, recipe)
    created = asyncio.Event()

    async def stay_queued(name: str) -> None:
        created.set()

    gateway.worker = stay_queued
    process = await wan22.start("replay", "old.mp4")
    await asyncio.wait_for(created.wait(), 30)
    process.send_signal(signal.SIGINT)
    result = await wan22.finish(process)
    (record,) = gateway.records.values()
    assert (result.exit_code, record.generation.state) == (130, Generation.CANCELLED)
    assert result.err.splitlines()[-1] == f"Cancelled {record.generation.name}."


async def test_equal_frames_beside_another_recipe_are_told(
    wan22: Wan22Command, gateway: MemoryGateway, recipe: Recipe
) -> None:
    make_file(wan22.folder, Recipe(VARIANT, "", PARAMETERS, {"option threads": "2"}))
    serve_video(gateway, make_file(wan22.folder, recipe, "other.mp4"))
    result = await wan22("replay", "old.mp4", "--json")
    assert result.exit_code == 1
    said = result.json()
    assert (said["same"], said["same_frames"]) == (False, True)
    assert said["differences"] == ["option threads was 2, is absent"]


async def test_another_model_version_is_refused_before_any_work(wan22: Wan22Command, gateway: MemoryGateway) -> None:
    make_file(wan22.folder, Recipe(VARIANT, "models/m/versions/sha256:00", PARAMETERS, {}))
    result = await wan22("replay", "old.mp4")
    assert result.exit_code == 1
    assert "serve that version, or name a pool of it by --pool" in result.err
    assert gateway.records == {}


async def test_a_pool_can_be_named(wan22: Wan22Command, gateway: MemoryGateway, recipe: Recipe) -> None:
    serve_video(gateway, make_file(wan22.folder, recipe))
    assert (await wan22("replay", "old.mp4", "--pool", "pools/local.other")).exit_code == 0
    (record,) = gateway.records.values()
    assert record.generation.pool == "pools/local.other"


async def test_left_out_texts_come_from_the_whole_recipe(
    wan22: Wan22Command, gateway: MemoryGateway, recipe: Recipe
) -> None:
    serve_video(gateway, make_file(wan22.folder, recipe.without_texts()))
    assert "has no prompt" in (await wan22("replay", "old.mp4")).err
    (wan22.folder / "whole.json").write_text(recipe.to_json())
    assert (await wan22("replay", "old.mp4", "--recipe", "whole.json")).exit_code == 0
    (wan22.folder / "whole.json").write_text(recipe.to_json().replace("a cat", "a dog"))
    assert "prompt is not the text" in (await wan22("replay", "old.mp4", "--recipe", "whole.json")).err


async def test_another_image_than_the_videos_is_refused(
    wan22: Wan22Command, gateway: MemoryGateway, recipe: Recipe
) -> None:
    make_file(wan22.folder, Recipe("i2v-a14b-tiny", "", PARAMETERS | {"image": "media/" + "0" * 64}, {}))
    (wan22.folder / "other.png").write_bytes(b"other")
    result = await wan22("replay", "old.mp4", "--image", "other.png")
    assert result.exit_code == 2
    assert "the video was made of media/000" in result.err


async def test_an_image_that_the_gateway_does_not_have_is_asked_for(
    wan22: Wan22Command, gateway: MemoryGateway
) -> None:
    (wan22.folder / "first.png").write_bytes(b"first")
    media = f"media/{hashlib.sha256(b'first').hexdigest()}"
    recipe = Recipe("i2v-a14b-tiny", "", PARAMETERS | {"image": media}, {})
    serve_video(gateway, make_file(wan22.folder, recipe))
    result = await wan22("replay", "old.mp4")
    assert (result.exit_code, result.err) == (
        2,
        f"Error: The gateway does not have {media}: give the image file by --image.\n",
    )
    assert (await wan22("replay", "old.mp4", "--image", "first.png")).exit_code == 0


async def test_a_file_without_a_recipe_is_refused(wan22: Wan22Command, gateway: MemoryGateway) -> None:
    (wan22.folder / "old.mp4").write_bytes(b"no mp4 at all")
    result = await wan22("replay", "old.mp4")
    assert result.exit_code == 2
    assert "is no MP4" in result.err
