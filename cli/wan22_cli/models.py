"""`wan22 models`: what the registry keeps."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from wan22.cache import Cache
from wan22.model_folder import infer_variant
from wan22.precision import check_precision, default_tags
from wan22.v1.model_pb2 import Version
from wan22.variants import VARIANTS, model_of
from wan22_cli import adapters, components, convert_pth, failures, oci, options, packing
from wan22_cli.home import Home
from wan22_cli.terminal import file_size, note, out, print_json, print_table, transfer_progress, utc_time

app = typer.Typer(no_args_is_help=True, help="List, import, check and remove model versions.")
app.command("import-lora")(adapters.import_lora)
app.command("import-component")(components.import_component)
app.command("convert-pth")(convert_pth.convert_pth)
app.command("approve")(adapters.approve)
app.command("unapprove")(adapters.unapprove)
app.command()(oci.push)
app.command()(oci.pull)

Reference = options.ModelReference


@app.command("list")
def list_(registry: options.Registry = None, json: options.Json = False) -> None:
    """Lists models with their versions and tags."""

    async def command() -> None:
        async with options.connect_registry(registry) as client:
            models = await client.list_models()
        if json:
            for model in models:
                print_json(model)
            return
        rows = [
            [
                version.name,
                ", ".join(version.tags),
                version.variant,
                adapters.summary(version),
                file_size(version.size_bytes),
                _pin(version),
            ]
            for model in models
            for version in model.versions
        ]
        print_table(["VERSION", "TAGS", "VARIANT", "ADAPTER", "SIZE", "PINNED"], rows)

    failures.run(command())


def _pin(version: Version) -> str:
    return "yes" if version.pinned else "no"


@app.command()
def get(reference: Reference, registry: options.Registry = None, json: options.Json = False) -> None:
    """Shows one version with its files."""

    async def command() -> None:
        async with options.connect_registry(registry) as client:
            version = await options.find_version(client, reference)
        if json:
            print_json(version)
            return
        facts = {"name": version.name, "variant": version.variant, "tags": ", ".join(version.tags)}
        facts |= {"created": utc_time(version.create_time), "pinned": _pin(version)}
        if version.HasField("adapter"):
            facts["adapter"] = adapters.summary(version)
        facts["size"] = file_size(version.size_bytes)
        for label, value in facts.items():
            out.print(f"{label:<10} {value}", markup=False, soft_wrap=True)
        out.print()
        print_table(["FILE", "SIZE", "DIGEST"], [[f.path, file_size(f.size_bytes), f.digest] for f in version.files])

    failures.run(command())


@app.command("import")
def import_(
    folder: Annotated[
        Path,
        typer.Argument(
            exists=True, file_okay=False, help="A model, laid out as diffusers or the official repository does."
        ),
    ],
    variant: Annotated[
        str | None, typer.Option(help="Whose architecture it is. Default: the one that its transformers show.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Its name. Default: the one that `wan22 up VARIANT` uses.")] = None,
    tag: Annotated[list[str] | None, typer.Option(help="May be repeated. Default: latest and bf16, or fp8.")] = None,
    precision: Annotated[
        str, typer.Option(help="bf16, or fp8: the matrices of transformers and text encoder in 8 bits.")
    ] = "bf16",
    registry: options.Registry = None,
    json: options.Json = False,
) -> None:
    """Packs and pushes a folder of safetensors and JSON; an interrupted import goes on where it stopped."""
    if variant is not None and variant not in VARIANTS:
        raise typer.BadParameter(
            f"{variant!r} is no variant: use one of {', '.join(VARIANTS)}.", param_hint="--variant"
        )

    async def command() -> None:
        of_variant = await asyncio.to_thread(infer_variant, folder) if variant is None else variant
        chosen = check_precision(precision)
        with transfer_progress() as progress:
            task = progress.add_task("importing", total=None)
            async with options.connect_registry(registry) as client:
                version = await client.push_folder(
                    folder,
                    model=model or model_of(of_variant),
                    variant=of_variant,
                    tags=tag or default_tags(of_variant, chosen),
                    packer=packing.packer(Home.from_environment().packing, of_variant, chosen),
                    progress=lambda done, total: progress.update(task, completed=done, total=total),
                )
        print_json(version) if json else out.print(version.name, soft_wrap=True)

    failures.run(command())


@app.command()
def export(
    reference: Reference,
    folder: Annotated[Path, typer.Argument(help="Where to; a new or empty folder.")],
    registry: options.Registry = None,
    json: options.Json = False,
) -> None:
    """Writes a version's files as they were imported, weights as safetensors; what is pulled stays in the cache."""

    async def command() -> None:
        target = packing.export(folder)
        with transfer_progress() as progress:
            task = progress.add_task("pulling", total=None)
            async with options.connect_registry(registry) as client:
                version = await options.find_version(client, reference)
                cached = await Cache(Home.from_environment().cache).pull(
                    version,
                    client,
                    progress=lambda done, total: progress.update(task, completed=done, total=total),
                )
            try:
                progress.update(task, description="writing", completed=0)
                sizes = {file.path: file.size_bytes for file in version.files}
                await target.write(cached, lambda path: progress.advance(task, sizes[path]))
            finally:
                cached.close()
        if json:
            print_json({"exported": version.name, "folder": str(folder)})
        else:
            out.print(f"{version.name} is in {folder}.", soft_wrap=True)

    failures.run(command())


@app.command()
def pin(reference: Reference, registry: options.Registry = None, json: options.Json = False) -> None:
    """Keeps a version from being deleted."""

    async def command() -> None:
        async with options.connect_registry(registry) as client:
            version = await client.pin((await options.find_version(client, reference)).name)
        print_json(version) if json else out.print(f"{version.name} is pinned.", soft_wrap=True)

    failures.run(command())


@app.command()
def unpin(reference: Reference, registry: options.Registry = None, json: options.Json = False) -> None:
    """Ends a pin."""

    async def command() -> None:
        async with options.connect_registry(registry) as client:
            version = await client.unpin((await options.find_version(client, reference)).name)
        print_json(version) if json else out.print(f"{version.name} is not pinned.", soft_wrap=True)

    failures.run(command())


@app.command()
def verify(reference: Reference, registry: options.Registry = None, json: options.Json = False) -> None:
    """Has the registry read a version again. Exit code 1 when a file is not what it should be."""

    async def command() -> None:
        async with options.connect_registry(registry) as client:
            version = await options.find_version(client, reference)
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
        async with options.connect_registry(registry) as client:
            name = (await options.find_version(client, reference)).name
            await client.delete(name)
        print_json({"deleted": name}) if json else out.print(f"Deleted {name}.", soft_wrap=True)

    failures.run(command())
