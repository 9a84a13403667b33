"""`wan22 replay`: makes a video again from the recipe in it, and compares the bytes."""

from __future__ import annotations

import asyncio
import filecmp
import tempfile
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from wan22.client import Client
from wan22.errors import FailedPrecondition, InvalidRequest, Reason
from wan22.mp4_boxes import read_recipe, video_digest
from wan22.recipe import Recipe, differences
from wan22.v1.generation_pb2 import Generation
from wan22_cli import failures, options
from wan22_cli.generate import cancel_created, check_output, end_unless_succeeded
from wan22_cli.progress import ProgressBar
from wan22_cli.terminal import note, notes, out, print_json


def replay(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, readable=True, help="An MP4 made by wan22.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", dir_okay=False, help="Keep the new MP4 there.", show_default=False)
    ] = None,
    recipe: Annotated[
        Path | None,
        typer.Option(
            exists=True, dir_okay=False, help="The whole recipe as JSON, where the MP4 was made with --omit-prompt."
        ),
    ] = None,
    image: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="First frame, where the gateway has it no more.")
    ] = None,
    last_image: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="Last frame, where the gateway has it no more.")
    ] = None,
    pool: Annotated[
        str, typer.Option(help="The pool that makes it. Default: the variant's own.", show_default=False)
    ] = "",
    endpoint: options.Endpoint = None,
    json: options.Json = False,
) -> None:
    """Makes a video again from its recipe. Ends with 0 when the bytes are the same, else with 1 and what differs.

    Ctrl-C cancels it.
    """
    if output is not None:
        check_output(output)

    async def command() -> None:
        made_by = await asyncio.to_thread(_read, file, recipe)
        async with options.connect(endpoint) as client:
            for field, path in (("image", image), ("last_image", last_image)):
                if path is not None:
                    await _upload(client, made_by, field, path)
            generation = await _make(client, made_by, pool)
            end_unless_succeeded(generation)
            made = await client.recipe(generation.name)
            with tempfile.TemporaryDirectory() as folder:
                path = await client.download(generation.name, output or Path(folder) / "replay.mp4")
                likeness = await asyncio.to_thread(_compare, path, file)
        _tell(generation, likeness, differences(made_by.numerics, made.numerics), json=json)

    failures.run(command())


def _read(file: Path, whole: Path | None) -> Recipe:
    """The recipe in the MP4, its texts put back from a whole one where they were left out."""
    recipe = read_recipe(file)
    if not recipe.hidden_texts:
        return recipe
    if whole is None:
        text = f"The recipe in {file} has no prompt: it was made with --omit-prompt. Give the whole one by --recipe; "
        raise InvalidRequest(f"{text}`wan22 generations recipe NAME` prints it.")
    texts = Recipe.from_json(whole.read_text()).parameters
    for name in recipe.hidden_texts:
        recipe = recipe.with_text(name, str(texts.get(name, "")))
    return recipe


async def _upload(client: Client, recipe: Recipe, field: str, path: Path) -> None:
    name = (await client.upload_media(path)).name
    if name != recipe.parameters.get(field):
        raise InvalidRequest(f"{path} is {name}, but the video was made of {recipe.parameters.get(field)}.")


async def _make(client: Client, recipe: Recipe, pool: str) -> Generation:
    parameters: dict[str, Any] = dict(recipe.parameters)
    try:
        would_be = (await client.estimate(variant=recipe.variant, pool=pool, **parameters)).generation
    except InvalidRequest as error:
        wrong = [violation.field.rpartition(".")[2] for violation in error.violations]
        if wrong not in (["image"], ["last_image"]):
            raise
        option = "--" + wrong[0].replace("_", "-")
        text = f"The gateway does not have {parameters[wrong[0]]}: give the image file by {option}."
        raise InvalidRequest(text) from error
    if would_be.model_version != recipe.model_version:
        text = f"The video was made of {recipe.model_version}, but {would_be.pool} serves {would_be.model_version}: "
        raise FailedPrecondition(
            f"{text}serve that version, or name a pool of it by --pool.", reason=Reason.WRONG_VERSION
        )
    creation = asyncio.create_task(client.create(variant=recipe.variant, pool=would_be.pool, **parameters))
    try:
        with ProgressBar(notes) as bar:
            created = await asyncio.shield(creation)
            async for event in client.watch(created.name):
                bar.show(event)
            return await client.get(created.name)
    except asyncio.CancelledError:
        await cancel_created(client, creation)
        raise


class Likeness(StrEnum):
    """How alike the two files are."""

    SAME_BYTES = "The same bytes."
    SAME_FRAMES = "The same frames, with another recipe beside them."
    OTHER_FRAMES = "Other bytes."


def _compare(made: Path, given: Path) -> Likeness:
    if filecmp.cmp(made, given, shallow=False):
        return Likeness.SAME_BYTES
    return Likeness.SAME_FRAMES if video_digest(made) == video_digest(given) else Likeness.OTHER_FRAMES


def _tell(generation: Generation, likeness: Likeness, found: list[str], *, json: bool) -> None:
    same = likeness is Likeness.SAME_BYTES
    if json:
        same_frames = likeness is not Likeness.OTHER_FRAMES
        print_json({"name": generation.name, "same": same, "same_frames": same_frames, "differences": found})
    else:
        out.print(likeness.value)
        for difference in found:
            note(difference)
        if not same and not found:
            note("The numerics are equal: the file was changed after it was made, or this is a fault of wan22.")
    if not same:
        raise typer.Exit(failures.FAILED)
