"""`wan22 models import-lora`, `approve` and `unapprove`: LoRA adapters in the registry."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from wan22.adapter import ADAPTER_FILE, WEIGHTS_FILE, Adapter
from wan22.names import VersionReference, check_model, check_tag
from wan22.v1 import model_pb2
from wan22_cli import failures, options
from wan22_cli.terminal import out, print_json


def summary(version: model_pb2.Version) -> str:
    """What a version's adapter is for, in a few words; empty for a whole model."""
    if not version.HasField("adapter"):
        return ""
    adapter = version.adapter
    expert = model_pb2.Adapter.Expert.Name(adapter.target_expert).lower()
    approved = "approved" if adapter.approved else "not approved"
    words = [f"expert {expert}", f"strength {adapter.min_strength:g} to {adapter.max_strength:g}", approved]
    return ", ".join(words + ["turbo"] * adapter.turbo)


def import_lora(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="The adapter's weights, safetensors.")],
    name: Annotated[str, typer.Argument(metavar="MODEL[:TAG]", help="What to call it; without a tag, latest.")],
    base: Annotated[str, typer.Option(help="The variant that it was made for.")],
    expert: Annotated[str, typer.Option(help="Which expert it is added to: high, low or both.")] = "both",
    min_strength: Annotated[float, typer.Option(help="The least that a request may multiply it with.")] = 0.0,
    max_strength: Annotated[float, typer.Option(help="The most that a request may multiply it with.")] = 1.5,
    turbo: Annotated[
        bool, typer.Option("--turbo", help="It distils the variant to the steps of profile turbo.")
    ] = False,
    alpha: Annotated[
        float | None, typer.Option(help="Of PEFT's own files: lora_alpha of the adapter_config.json beside them.")
    ] = None,
    approve: Annotated[bool, typer.Option("--approve", help="Let requests use it at once.")] = False,
    registry: options.Registry = None,
    json: options.Json = False,
) -> None:
    """Pushes a LoRA adapter; requests may use it once it is approved."""

    async def command() -> None:
        reference = VersionReference.parse(name, "name")
        model, tag = check_model(reference.model), check_tag(reference.tag or "")
        adapter = Adapter(
            base_variant=base,
            target_expert=expert,  # type: ignore[arg-type]  # which the adapter checks
            min_strength=min_strength,
            max_strength=max_strength,
            turbo=turbo,
            alpha=alpha,
        )
        with tempfile.TemporaryDirectory() as folder:
            facts = Path(folder) / ADAPTER_FILE
            facts.write_bytes(adapter.to_json())
            files = {ADAPTER_FILE: facts, WEIGHTS_FILE: file}
            async with options.connect_registry(registry) as client:
                version = await client.push(files, model=model, variant=base, tags=[tag])
                if approve:
                    version = await client.approve_adapter(version.name)
        print_json(version) if json else out.print(version.name, soft_wrap=True)

    failures.run(command())


def approve(reference: options.ModelReference, registry: options.Registry = None, json: options.Json = False) -> None:
    """Lets requests use a LoRA adapter."""

    async def command() -> None:
        async with options.connect_registry(registry) as client:
            version = await client.approve_adapter((await options.find_version(client, reference)).name)
        print_json(version) if json else out.print(f"{version.name} is approved.", soft_wrap=True)

    failures.run(command())


def unapprove(reference: options.ModelReference, registry: options.Registry = None, json: options.Json = False) -> None:
    """Ends a LoRA adapter's approval: new requests may not use it."""

    async def command() -> None:
        async with options.connect_registry(registry) as client:
            version = await client.unapprove_adapter((await options.find_version(client, reference)).name)
        print_json(version) if json else out.print(f"{version.name} is not approved.", soft_wrap=True)

    failures.run(command())
