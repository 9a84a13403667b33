"""`wan22 models import-component`: a version with one component of another."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from wan22.names import VersionReference, check_model, check_tag
from wan22.precision import check_precision
from wan22.single_file import place_of, without_weights
from wan22_cli import failures, options, packing
from wan22_cli.home import Home
from wan22_cli.terminal import out, print_json, transfer_progress


def import_component(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="All its weights, safetensors.")],
    name: Annotated[str, typer.Argument(metavar="MODEL[:TAG]", help="What to call it; without a tag, latest.")],
    component: Annotated[str, typer.Option(help="transformer, transformer_2, text_encoder or vae.")],
    base: Annotated[str, typer.Option(metavar="REFERENCE", help="The version in the registry that has all else.")],
    precision: Annotated[str, typer.Option(help="bf16 or fp8, as with `import`.")] = "bf16",
    registry: options.Registry = None,
    json: options.Json = False,
) -> None:
    """Publishes a version of the registry with a component of a single file in place of its own."""

    async def command() -> None:
        reference, chosen = VersionReference.parse(name, "name"), check_precision(precision)
        model, tag = check_model(reference.model), check_tag(reference.tag or "")
        with transfer_progress() as progress:
            task = progress.add_task("importing", total=None)
            async with options.connect_registry(registry) as client:
                whole = await options.find_version(client, base)
                place = await asyncio.to_thread(place_of, file, component, whole.variant)
                version = await client.push(
                    {place: file},
                    model=model,
                    variant=whole.variant,
                    tags=[tag],
                    packer=packing.packer(Home.from_environment().packing, whole.variant, chosen),
                    kept=without_weights(whole, component),
                    progress=lambda done, total: progress.update(task, completed=done, total=total),
                )
        print_json(version) if json else out.print(version.name, soft_wrap=True)

    failures.run(command())
