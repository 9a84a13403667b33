"""`wan22 generations`: what the gateway keeps."""

from __future__ import annotations

from enum import StrEnum
from itertools import count
from pathlib import Path
from typing import Annotated, Any

import typer

from wan22.client import Client
from wan22.v1.generation_pb2 import Generation
from wan22_cli import failures, options
from wan22_cli.generate import check_output, end_unless_succeeded
from wan22_cli.progress import describe
from wan22_cli.terminal import as_dict, out, print_json, print_table, utc_time

app = typer.Typer(no_args_is_help=True, help="List, watch, cancel and fetch generations.")


class StateName(StrEnum):
    """The states, as typed on a command line."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


@app.command("list")
def list_(
    state: Annotated[list[StateName] | None, typer.Option(help="Only these; may be repeated.")] = None,
    variant: Annotated[str, typer.Option(help="Only this variant.")] = "",
    label: options.Labels = None,
    limit: Annotated[int, typer.Option(min=1, help="At most this many.")] = 20,
    endpoint: options.Endpoint = None,
    json: options.Json = False,
) -> None:
    """Lists generations, newest first."""
    states = [Generation.State.Value(name.name) for name in state or ()]
    labels = options.parse_labels(label)

    async def command() -> None:
        rows = []
        async with options.connect(endpoint) as client:
            numbers = count(1)
            async for generation in client.list(
                states=states, variant=variant, labels=labels, page_size=min(limit, 1000)
            ):
                if json:
                    print_json(generation)
                rows.append(_row(generation))
                if next(numbers) == limit:
                    break
        if not json:
            print_table(["NAME", "STATE", "VARIANT", "CREATED", "VIDEO UNTIL", "PROMPT"], rows)

    failures.run(command())


def _row(generation: Generation) -> list[str]:
    prompt = generation.parameters.prompt
    return [
        generation.name,
        Generation.State.Name(generation.state),
        generation.variant,
        utc_time(generation.create_time),
        _expiry(generation) or "-",
        prompt if len(prompt) <= 40 else f"{prompt[:39]}…",
    ]


@app.command()
def get(name: options.Name, endpoint: options.Endpoint = None, json: options.Json = False) -> None:
    """Shows one generation with the parameters that take effect."""

    async def command() -> None:
        async with options.connect(endpoint) as client:
            _show(await client.get(options.generation_name(name)), json=json)

    failures.run(command())


def _show(generation: Generation, *, json: bool) -> None:
    if json:
        print_json(generation)
        return
    for label, value in _facts(generation):
        if value != "":
            out.print(f"{label:<20} {value}", markup=False, soft_wrap=True)


def _facts(generation: Generation) -> list[tuple[str, Any]]:
    facts: list[tuple[str, Any]] = [
        ("name", generation.name),
        ("state", Generation.State.Name(generation.state)),
        ("variant", generation.variant),
        ("pool", generation.pool),
        ("model_version", generation.model_version),
        ("created", utc_time(generation.create_time)),
        ("attempts", generation.attempt_count),
    ]
    if generation.resumed_step:
        facts.append(("resumed_step", generation.resumed_step))
    if generation.restart_reason:
        facts.append(("restarted", generation.restart_reason))
    if generation.state == Generation.QUEUED:
        facts += [("queue_position", generation.queue_position), ("waiting_for", generation.waiting_for)]
    if generation.HasField("end_time"):
        facts.append(("ended", utc_time(generation.end_time)))
    if generation.HasField("error"):
        facts.append(("error", generation.error.message))
    if generation.HasField("video"):
        facts += [("size_bytes", generation.video.size_bytes), ("digest", generation.video.digest)]
        facts += [("video_expires", _expiry(generation)), ("reused_from", generation.reused_from)]
    facts += [(f"label {key}", value) for key, value in sorted(generation.labels.items())]
    facts += as_dict(generation.parameters).items()
    facts += [(f"asked_{name}", text) for name, text in as_dict(generation.asked_texts).items()]
    return facts


def _expiry(generation: Generation) -> str:
    """Until when there is a video; empty without an end, or without a video."""
    video = generation.video
    return utc_time(video.expire_time) if video.HasField("expire_time") else ""


@app.command()
def watch(
    name: options.Name,
    after: Annotated[int, typer.Option(min=0, help="Only events after this sequence number.")] = 0,
    endpoint: options.Endpoint = None,
    json: options.Json = False,
) -> None:
    """Prints a generation's events until it ends. Exit code 1 when it ends without a video."""

    async def command() -> None:
        full_name = options.generation_name(name)
        async with options.connect(endpoint) as client:
            async for event in client.watch(full_name, after):
                if json:
                    print_json(event)
                else:
                    number = event.sequence or "-"
                    out.print(f"{number:>5}  {describe(event)}", markup=False, soft_wrap=True)
            end_unless_succeeded(await client.get(full_name))

    failures.run(command())


@app.command()
def cancel(name: options.Name, endpoint: options.Endpoint = None, json: options.Json = False) -> None:
    """Asks a generation to stop."""

    async def command() -> None:
        async with options.connect(endpoint) as client:
            generation = await client.cancel(options.generation_name(name))
        if json:
            print_json(generation)
        elif generation.HasField("end_time"):
            out.print(f"{generation.name} is {Generation.State.Name(generation.state)}.")
        else:
            out.print(f"{generation.name} was asked to stop.")

    failures.run(command())


@app.command()
def delete(
    names: Annotated[list[str], typer.Argument(help="generations/{uuid}, or the UUID alone.")],
    force: Annotated[bool, typer.Option("--force", help="Cancel unfinished ones first.")] = False,
    endpoint: options.Endpoint = None,
    json: options.Json = False,
) -> None:
    """Removes generations together with their videos."""

    async def command() -> None:
        async with options.connect(endpoint) as client:
            for name in map(options.generation_name, names):
                await client.delete(name, force=force)
                print_json({"deleted": name}) if json else out.print(f"Deleted {name}.")

    failures.run(command())


@app.command()
def download(
    name: options.Name,
    output: Annotated[Path, typer.Option("--output", "-o", dir_okay=False, help="Where the MP4 goes.")],
    endpoint: options.Endpoint = None,
    json: options.Json = False,
) -> None:
    """Fetches a finished generation's MP4 and checks its digest."""
    check_output(output)

    async def command() -> None:
        async with options.connect(endpoint) as client:
            path = await client.download(options.generation_name(name), output)
        print_json({"path": str(path)}) if json else out.print(str(path), markup=False, soft_wrap=True)

    failures.run(command())


@app.command()
def url(
    name: options.Name,
    valid_for: Annotated[
        float, typer.Option(min=0.001, max=3600, help="Seconds for which it is good, an hour at most.")
    ] = 3600,
    endpoint: options.Endpoint = None,
    json: options.Json = False,
) -> None:
    """Prints a URL by which anybody can fetch a finished generation's MP4 for a while."""

    async def command() -> None:
        async with options.connect(endpoint) as client:
            made = await client.download_url(options.generation_name(name), valid_for=valid_for)
        print_json(made) if json else typer.echo(made.url)

    failures.run(command())


@app.command()
def recipe(name: options.Name, endpoint: options.Endpoint = None) -> None:
    """Prints what a finished generation's video was made of, as JSON, the texts included."""

    async def command() -> None:
        async with options.connect(endpoint) as client:
            typer.echo((await client.recipe(options.generation_name(name))).to_json())

    failures.run(command())


@app.command()
def retry(name: options.Name, endpoint: options.Endpoint = None, json: options.Json = False) -> None:
    """Queues a new generation of the same variant, pool, labels and parameters, seed included.

    Texts are those that were asked for, also where the gateway has put others in their place: it is asked anew.
    """

    async def command() -> None:
        async with options.connect(endpoint) as client:
            created = await _repeat(client, await client.get(options.generation_name(name)))
        print_json(created) if json else out.print(created.name)

    failures.run(command())


async def _repeat(client: Client, done: Generation) -> Generation:
    parameters: Any = {field.name: value for field, value in done.parameters.ListFields()}
    if done.HasField("asked_texts"):
        parameters.pop("negative_prompt", None)
        parameters |= {field.name: value for field, value in done.asked_texts.ListFields()}
    return await client.create(variant=done.variant, pool=done.pool, labels=done.labels, **parameters)
