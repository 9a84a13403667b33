"""Options that several commands have, and what their values mean."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

import typer

from wan22.client import DEFAULT_ENDPOINT, Client, tls_from_environment
from wan22.model_client import ModelClient
from wan22.v1.model_pb2 import Version
from wan22_cli.home import Home

DEFAULT_REGISTRY = "localhost:50052"

Json = Annotated[bool, typer.Option("--json", help="Print JSON: one object a line.")]
Endpoint = Annotated[
    str | None,
    typer.Option(
        envvar="WAN22_ENDPOINT",
        help=f"host:port of the gateway. Default: that of the running `wan22 up`, else {DEFAULT_ENDPOINT}.",
        show_default=False,
    ),
]
Registry = Annotated[
    str | None,
    typer.Option(
        help=f"host:port of the model registry. Default: that of the running `wan22 up`, else {DEFAULT_REGISTRY}.",
        show_default=False,
    ),
]
ModelReference = Annotated[
    str, typer.Argument(help="MODEL[:TAG][@sha256:DIGEST], or models/{model}/versions/{digest}.")
]
Labels = Annotated[list[str] | None, typer.Option("--label", metavar="KEY=VALUE", help="May be repeated.")]
Name = Annotated[str, typer.Argument(help="generations/{uuid}, or the UUID alone.")]


def connect(endpoint: str | None) -> Client:
    """Makes the client of a command."""
    running = Home.from_environment().running()
    return Client(endpoint or (running.endpoint if running else None))


def registry_target(registry: str | None) -> str:
    """Where the model registry answers."""
    running = Home.from_environment().running()
    return registry or (running.registry if running else DEFAULT_REGISTRY)


def connect_registry(registry: str | None) -> ModelClient:
    """Makes the client of a command about models."""
    return ModelClient(registry_target(registry), tls_from_environment())


async def find_version(client: ModelClient, reference: str) -> Version:
    """The version that a reference or a name means. Raises NotFound."""
    return await (client.get_version(reference) if reference.startswith("models/") else client.resolve(reference))


def parse_labels(labels: Iterable[str] | None) -> dict[str, str]:
    """Splits KEY=VALUE texts."""
    parsed: dict[str, str] = {}
    for label in labels or ():
        key, equals, value = label.partition("=")
        if not key or not equals:
            raise typer.BadParameter(f"{label!r} is no label: use KEY=VALUE.", param_hint="--label")
        parsed[key] = value
    return parsed


def generation_name(name: str) -> str:
    """Completes a bare UUID to a resource name; the gateway checks it."""
    return name if "/" in name else f"generations/{name}"
