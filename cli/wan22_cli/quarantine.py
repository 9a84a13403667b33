"""`wan22 admin quarantine`: generations under which worker processes died, and their release."""

from __future__ import annotations

from typing import Annotated

import typer

from wan22.v1 import admin_pb2
from wan22_cli import failures, options
from wan22_cli.admin_calls import DEADLINE, connect
from wan22_cli.terminal import out, print_json, print_table, utc_time

app = typer.Typer(no_args_is_help=True, help="Generations that killed workers, and are not tried again.")


@app.command("list")
def list_quarantined(
    released: Annotated[bool, typer.Option("--released", help="Also those that were released.")] = False,
    endpoint: options.Endpoint = None,
    json: options.Json = False,
) -> None:
    """Lists them with the evidence, newest first."""

    async def command() -> None:
        async with connect(endpoint) as (stub, calls):
            request = admin_pb2.ListQuarantinedRequest(show_released=released)
            answer = await calls.unary(stub.ListQuarantined, request, deadline=DEADLINE)
        if json:
            for found in answer.quarantined:
                print_json(found)
            return
        columns = ["GENERATION", "TENANT", "VARIANT", "SINCE", "DEATHS", "LAST CHECKPOINT", "RELEASED"]
        print_table(columns, [_row(found) for found in answer.quarantined])

    failures.run(command())


def _row(found: admin_pb2.Quarantined) -> list[str]:
    return [
        found.generation,
        found.tenant,
        found.variant,
        utc_time(found.quarantine_time),
        ", ".join(f"{death.worker} {utc_time(death.end_time)}" for death in found.deaths),
        f"step {found.last_checkpoint_step}" if found.last_checkpoint_step else "none",
        utc_time(found.release_time) if found.HasField("release_time") else "-",
    ]


@app.command()
def release(name: options.Name, endpoint: options.Endpoint = None, json: options.Json = False) -> None:
    """Lets its tenant make it again, by `wan22 generations retry` for example; it stays FAILED itself."""

    async def command() -> None:
        async with connect(endpoint) as (stub, calls):
            request = admin_pb2.ReleaseQuarantinedRequest(name=options.generation_name(name))
            released = await calls.unary(stub.ReleaseQuarantined, request, deadline=DEADLINE)
        print_json(released) if json else out.print(f"Released {released.generation}.")

    failures.run(command())
