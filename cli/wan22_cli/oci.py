"""`wan22 models push` and `pull`: versions to and from other registries."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from wan22.errors import FailedPrecondition, InvalidRequest
from wan22.names import check_model, check_tag
from wan22_cli import failures, options
from wan22_cli.terminal import out, print_json, transfer_progress

if TYPE_CHECKING:
    from wan22.oci.registry import OciRegistry

Remote = Annotated[
    str,
    typer.Argument(
        metavar="oci://HOST/REPOSITORY[:TAG]", help="The other registry; credentials are those of `docker login`."
    ),
]
PlainHttp = Annotated[
    bool, typer.Option("--plain-http", help="Ask without TLS. On this machine that is done without being told.")
]


def push(
    reference: options.ModelReference,
    remote: Remote,
    plain_http: PlainHttp = False,
    registry: options.Registry = None,
    json: options.Json = False,
) -> None:
    """Copies a version to an OCI registry; what is there already is not sent, a broken transfer goes on."""

    async def command() -> None:
        with _needed():
            from wan22.oci.transfer import push_version  # noqa: PLC0415  # not at hand in every install
        with _bar("pushing") as progress:
            async with options.connect_registry(registry) as client, _open(remote, plain_http) as other:
                version = await options.find_version(client, reference)
                digest = await push_version(version, client, other, progress)
        if json:
            print_json({"pushed": version.name, "to": str(other.reference), "digest": digest})
        else:
            out.print(f"{other.reference} is {version.name}.", soft_wrap=True)

    failures.run(command())


def pull(
    remote: Remote,
    model: Annotated[str | None, typer.Option(help="Its name here. Default: the last part of the repository.")] = None,
    tag: Annotated[
        list[str] | None, typer.Option(help="May be repeated. Default: the reference's own, if it has one.")
    ] = None,
    plain_http: PlainHttp = False,
    registry: options.Registry = None,
    json: options.Json = False,
) -> None:
    """Copies a version from an OCI registry into the model registry, byte for byte; a broken transfer goes on."""

    async def command() -> None:
        with _needed():
            from wan22.oci.transfer import pull_version  # noqa: PLC0415  # not at hand in every install
        with _bar("pulling") as progress:
            async with options.connect_registry(registry) as client, _open(remote, plain_http) as other:
                name = _model_name(model, other.reference.repository)
                own = [other.reference.tag] if other.reference.tag else []
                tags = [check_tag(given, "tag") for given in tag or own]
                version = await pull_version(other, client, model=name, tags=tags, progress=progress)
        print_json(version) if json else out.print(version.name, soft_wrap=True)

    failures.run(command())


def _model_name(given: str | None, repository: str) -> str:
    try:
        return check_model(given or repository.rpartition("/")[2])
    except InvalidRequest as error:
        if given:
            raise
        text = f"The repository {repository} does not end in the name of a model: pass --model."
        raise InvalidRequest(text, field="model") from error


def _open(remote: str, plain_http: bool) -> OciRegistry:
    from wan22.oci.reference import OciReference  # noqa: PLC0415  # not at hand in every install
    from wan22.oci.registry import OciRegistry  # noqa: PLC0415  # not at hand in every install

    return OciRegistry(OciReference.parse(remote), plain_http=plain_http)


@contextmanager
def _bar(description: str) -> Iterator[Callable[[int, int], object]]:
    """Shows a bar while the context lasts; to be called with the bytes done and the bytes in all."""
    with transfer_progress() as bar:
        task = bar.add_task(description, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@contextmanager
def _needed() -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        text = f"Other registries are asked by {error.name}, which is not installed: pip install 'wan22[oci]'."
        raise FailedPrecondition(text) from error
