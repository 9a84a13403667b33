"""`wan22 models`: what the registry keeps."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from wan22.model_client import ModelClient
from wan22.v1.model_pb2 import Version
from wan22.variants import VARIANTS, model_of
from wan22_cli import failures, options
from wan22_cli.terminal import file_size, note, notes, out, print_json, print_table, utc_time

app = typer.Typer(no_args_is_help=True, help="List, import, check and remove model versions.")

Reference = Annotated[str, typer.Argument(help="MODEL[:TAG][@sha256:DIGEST], or models/{model}/versions/{digest}.")]


def _client(registry: str | None) -> ModelClient:
    return ModelClient(options.registry_target(registry))


async def _find(client: ModelClient, reference: str) -> Version:
    return await (client.get_version(reference) if reference.startswith("models/") else client.resolve(reference))


@app.command("list")
def list_(registry: options.Registry = None, json: options.Json = False) -> None:
    """Lists models with their versions and tags."""

    async def command() -> None:
        async with _client(registry) as client:
            models = await client.list_models()
        if json:
            for model in models:
                print_json(model)
            return
        rows = [
            [version.name, ", ".join(version.tags), version.variant, file_size(version.size_bytes), _pin(version)]
            for model in models
            for version in model.versions
        ]
        print_table(["VERSION", "TAGS", "VARIANT", "SIZE", "PINNED"], rows)

    failures.run(command())


def _pin(version: Version) -> str:
    return "yes" if version.pinned else "no"


@app.command()
def get(reference: Reference, registry: options.Registry = None, json: options.Json = False) -> None:
    """Shows one version with its files."""

    async def command() -> None:
        async with _client(registry) as client:
            version = await _find(client, reference)
        if json:
            print_json(version)
            return
        facts = {"name": version.name, "variant": version.variant, "tags": ", ".join(version.tags)}
        facts |= {"created": utc_time(version.create_time), "pinned": _pin(version)}
        facts["size"] = file_size(version.size_bytes)
        for label, value in facts.items():
            out.print(f"{label:<10} {value}", markup=False, soft_wrap=True)
        out.print()
        print_table(["FILE", "SIZE", "DIGEST"], [[f.path, file_size(f.size_bytes), f.digest] for f in version.files])

    failures.run(command())


@app.command("import")
def import_(
    folder: Annotated[Path, typer.Argument(exists=True, file_okay=False, help="A model as diffusers lays it out.")],
    variant: Annotated[str, typer.Option(help="Whose architecture it is.")],
    model: Annotated[str | None, typer.Option(help="Its name. Default: the one that `wan22 up VARIANT` uses.")] = None,
    tag: Annotated[list[str] | None, typer.Option(help="May be repeated. Default: latest.")] = None,
    registry: options.Registry = None,
    json: options.Json = False,
) -> None:
    """Pushes a folder of safetensors and JSON; an interrupted import goes on where it stopped."""
    if variant not in VARIANTS:
        raise typer.BadParameter(
            f"{variant!r} is no variant: use one of {', '.join(VARIANTS)}.", param_hint="--variant"
        )

    async def command() -> None:
        columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn()
        with Progress(*columns, console=notes, transient=True, disable=not notes.is_terminal) as progress:
            task = progress.add_task("importing", total=None)
            async with _client(registry) as client:
                version = await client.push_folder(
                    folder,
                    model=model or model_of(variant),
                    variant=variant,
                    tags=tag or ["latest"],
                    progress=lambda done, total: progress.update(task, completed=done, total=total),
                )
        print_json(version) if json else out.print(version.name, soft_wrap=True)

    failures.run(command())


@app.command()
def pin(reference: Reference, registry: options.Registry = None, json: options.Json = False) -> None:
    """Keeps a version from being deleted."""

    async def command() -> None:
        async with _client(registry) as client:
            version = await client.pin((await _find(client, reference)).name)
        print_json(version) if json else out.print(f"{version.name} is pinned.", soft_wrap=True)

    failures.run(command())


@app.command()
def unpin(reference: Reference, registry: options.Registry = None, json: options.Json = False) -> None:
    """Ends a pin."""

    async def command() -> None:
        async with _client(registry) as client:
            version = await client.unpin((await _find(client, reference)).name)
        print_json(version) if json else out.print(f"{version.name} is not pinned.", soft_wrap=True)

    failures.run(command())


@app.command()
def verify(reference: Reference, registry: options.Registry = None, json: options.Json = False) -> None:
    """Has the registry read a version again. Exit code 1 when a file is not what it should be."""

    async def command() -> None:
        async with _client(registry) as client:
            version = await _find(client, reference)
            answer = await client.verify(version.name)
        if json:
            print_json(answer)
        for damaged in answer.damaged:
            actual = f"has {damaged.actual_digest}" if damaged.actual_digest else "is missing"
            note(f"Error: {damaged.file.path} {actual}, not {damaged.file.digest}: import the model again.")
        if answer.damaged:
            raise typer.Exit(failures.FAILED)
        if not json:
            out.print(f"{version.name}: {file_size(answer.bytes_verified)} are as they should be.", soft_wrap=True)

    failures.run(command())


@app.command()
def delete(reference: Reference, registry: options.Registry = None, json: options.Json = False) -> None:
    """Removes a version, its tags, and the files that no other version uses."""

    async def command() -> None:
        async with _client(registry) as client:
            name = (await _find(client, reference)).name
            await client.delete(name)
        print_json({"deleted": name}) if json else out.print(f"Deleted {name}.", soft_wrap=True)

    failures.run(command())
