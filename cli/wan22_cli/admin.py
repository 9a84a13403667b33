"""`wan22 admin`: who may call the gateway, and how much each may have."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Annotated

import typer

from wan22.v1 import admin_pb2
from wan22_cli import failures, options, quarantine, webhooks
from wan22_cli.admin_calls import DEADLINE, connect, named
from wan22_cli.terminal import file_size, note, out, print_json, print_table, utc_time

app = typer.Typer(no_args_is_help=True, help="Tenants, API keys, webhooks and quarantine, for administrators.")
tenants = typer.Typer(no_args_is_help=True, help="Who has generations, and how many.")
keys = typer.Typer(no_args_is_help=True, help="What callers prove by who they are.")
app.add_typer(tenants, name="tenants")
app.add_typer(keys, name="keys")
app.add_typer(quarantine.app, name="quarantine")
app.add_typer(webhooks.admin, name="webhooks")
Tenant = Annotated[str, typer.Argument(help="tenants/{tenant}, or the tenant alone.")]


class RoleName(StrEnum):
    """The roles, as typed on a command line."""

    USER = "user"
    OPERATOR = "operator"
    ADMIN = "admin"


@tenants.command()
def apply(
    name: Tenant,
    weight: Annotated[float | None, typer.Option(help="Share of busy pools. Default: 1.")] = None,
    max_queued: Annotated[int | None, typer.Option(help="Most waiting generations. Default: no limit.")] = None,
    max_running: Annotated[int | None, typer.Option(help="Most running at once. Default: no limit.")] = None,
    gpu_seconds_per_day: Annotated[float | None, typer.Option(help="UTC days. Default: no limit.")] = None,
    max_media_bytes: Annotated[int | None, typer.Option(help="Of kept images. Default: no limit.")] = None,
    endpoint: options.Endpoint = None,
    json: options.Json = False,
) -> None:
    """Creates a tenant, or sets all its limits anew."""
    wanted = admin_pb2.Tenant(
        name=named("tenants", name),
        weight=weight,
        max_queued=max_queued,
        max_running=max_running,
        gpu_seconds_per_day=gpu_seconds_per_day,
        max_media_bytes=max_media_bytes,
    )

    async def command() -> None:
        async with connect(endpoint) as (stub, calls):
            request = admin_pb2.ApplyTenantRequest(tenant=wanted)
            made = await calls.unary(stub.ApplyTenant, request, deadline=DEADLINE)
        print_json(made) if json else out.print(made.name)

    failures.run(command())


@tenants.command("list")
def list_tenants(endpoint: options.Endpoint = None, json: options.Json = False) -> None:
    """Lists tenants with their limits."""

    async def command() -> None:
        async with connect(endpoint) as (stub, calls):
            answer = await calls.unary(stub.ListTenants, admin_pb2.ListTenantsRequest(), deadline=DEADLINE)
        if json:
            for tenant in answer.tenants:
                print_json(tenant)
            return
        rows = [
            [
                tenant.name,
                f"{tenant.weight:g}",
                f"{tenant.max_queued}" if tenant.HasField("max_queued") else "-",
                f"{tenant.max_running}" if tenant.HasField("max_running") else "-",
                f"{tenant.gpu_seconds_per_day:g}" if tenant.HasField("gpu_seconds_per_day") else "-",
                file_size(tenant.max_media_bytes) if tenant.HasField("max_media_bytes") else "-",
            ]
            for tenant in answer.tenants
        ]
        print_table(["NAME", "WEIGHT", "QUEUED", "RUNNING", "GPU-SECONDS A DAY", "IMAGES"], rows)

    failures.run(command())


@tenants.command()
def delete(name: Tenant, endpoint: options.Endpoint = None) -> None:
    """Removes a tenant that has no generations, with its keys."""

    async def command() -> None:
        async with connect(endpoint) as (stub, calls):
            request = admin_pb2.DeleteTenantRequest(name=named("tenants", name))
            await calls.unary(stub.DeleteTenant, request, deadline=DEADLINE)
        out.print(f"Deleted {request.name}.")

    failures.run(command())


@keys.command()
def new(
    tenant: Tenant,
    role: Annotated[list[RoleName] | None, typer.Option(help="May be repeated. Default: user.")] = None,
    description: Annotated[str, typer.Option(help="What it is for.")] = "",
    days: Annotated[float | None, typer.Option(min=0.01, help="How long it is good. Default: until revoked.")] = None,
    endpoint: options.Endpoint = None,
    json: options.Json = False,
) -> None:
    """Makes a key and prints it; it is shown this once."""
    roles = [admin_pb2.Role.Value(name.name) for name in role or [RoleName.USER]]
    key = admin_pb2.Key(tenant=named("tenants", tenant), roles=roles, description=description)
    if days is not None:
        key.expire_time.FromDatetime(datetime.now(UTC) + timedelta(days=days))

    async def command() -> None:
        async with connect(endpoint) as (stub, calls):
            request = admin_pb2.CreateKeyRequest(key=key)
            made = await calls.once(stub.CreateKey, request, deadline=DEADLINE)
        if json:
            print_json(made)
            return
        out.print(made.secret, markup=False, soft_wrap=True)
        note(f"{made.key.name} of {made.key.tenant}: keep it, it is not shown again.")

    failures.run(command())


@keys.command("list")
def list_keys(
    tenant: Annotated[str, typer.Option(help="Only this tenant's.")] = "",
    endpoint: options.Endpoint = None,
    json: options.Json = False,
) -> None:
    """Lists keys without their secrets."""

    async def command() -> None:
        async with connect(endpoint) as (stub, calls):
            request = admin_pb2.ListKeysRequest(tenant=named("tenants", tenant) if tenant else "")
            answer = await calls.unary(stub.ListKeys, request, deadline=DEADLINE)
        if json:
            for key in answer.keys:
                print_json(key)
            return
        rows = [
            [
                key.name,
                key.tenant,
                ", ".join(admin_pb2.Role.Name(role).lower() for role in key.roles),
                _state(key),
                key.description,
            ]
            for key in answer.keys
        ]
        print_table(["NAME", "TENANT", "ROLES", "GOOD", "DESCRIPTION"], rows)

    failures.run(command())


def _state(key: admin_pb2.Key) -> str:
    if key.HasField("revoke_time"):
        return f"revoked {utc_time(key.revoke_time)}"
    return f"until {utc_time(key.expire_time)}" if key.HasField("expire_time") else "until revoked"


@keys.command()
def revoke(
    name: Annotated[str, typer.Argument(help="keys/{key}, or its id alone.")], endpoint: options.Endpoint = None
) -> None:
    """Ends a key at once."""

    async def command() -> None:
        async with connect(endpoint) as (stub, calls):
            request = admin_pb2.RevokeKeyRequest(name=named("keys", name))
            await calls.unary(stub.RevokeKey, request, deadline=DEADLINE)
        out.print(f"Revoked {request.name}.")

    failures.run(command())
