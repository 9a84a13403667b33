"""`wan22 webhooks`: a tenant's own webhook and deliveries; `wan22 admin webhooks`: everybody's."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from wan22.client_calls import Calls
from wan22.v1 import admin_pb2, webhook_pb2
from wan22.v1.webhook_pb2_grpc import WebhookServiceStub
from wan22_cli import failures, options
from wan22_cli.admin_calls import DEADLINE, connect, named
from wan22_cli.gateway_calls import open_calls
from wan22_cli.terminal import note, out, print_json, print_table, utc_time

if TYPE_CHECKING:
    from wan22.v1.webhook_pb2_grpc import WebhookServiceAsyncStub  # is in the stub file only

app = typer.Typer(no_args_is_help=True, help="What is told of generations that have ended, and to whom.")
admin = typer.Typer(no_args_is_help=True, help="Where tenants are told that generations have ended.")
Tenant = Annotated[str, typer.Argument(help="tenants/{tenant}, or the tenant alone.")]


class StateName(StrEnum):
    """The states of a delivery, as typed on a command line."""

    PENDING = "pending"
    DELIVERED = "delivered"
    DEAD = "dead"


@asynccontextmanager
async def _connect(endpoint: str | None) -> AsyncIterator[tuple[WebhookServiceAsyncStub, Calls]]:
    async with open_calls(endpoint) as (channel, calls):
        yield WebhookServiceStub(channel), calls


@app.command()
def show(endpoint: options.Endpoint = None) -> None:
    """Shows the tenant's webhook as JSON, without its secret."""

    async def command() -> None:
        async with _connect(endpoint) as (stub, calls):
            webhook = await calls.unary(stub.GetWebhook, webhook_pb2.GetWebhookRequest(), deadline=DEADLINE)
        print_json(webhook)

    failures.run(command())


@app.command("list")
def list_deliveries(
    state: Annotated[StateName | None, typer.Option(help="dead: those that nobody took. Default: all.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most this many.")] = 20,
    endpoint: options.Endpoint = None,
    json: options.Json = False,
) -> None:
    """Lists deliveries, newest first."""
    request = webhook_pb2.ListDeliveriesRequest(page_size=min(limit, 1000))
    if state is not None:
        request.state = webhook_pb2.Delivery.State.Value(state.name)

    async def command() -> None:
        found: list[webhook_pb2.Delivery] = []
        async with _connect(endpoint) as (stub, calls):
            while len(found) < limit:
                answer = await calls.unary(stub.ListDeliveries, request, deadline=DEADLINE)
                found += answer.deliveries
                request.page_token = answer.next_page_token
                if not request.page_token:
                    break
        del found[limit:]
        if json:
            for delivery in found:
                print_json(delivery)
            return
        columns = ["NAME", "STATE", "GENERATION", "TYPE", "TRIES", "NEXT", "LAST ERROR"]
        print_table(columns, [_row(delivery) for delivery in found])

    failures.run(command())


def _row(delivery: webhook_pb2.Delivery) -> list[str]:
    return [
        delivery.name,
        webhook_pb2.Delivery.State.Name(delivery.state),
        delivery.generation,
        delivery.type,
        str(delivery.attempt_count),
        utc_time(delivery.next_attempt_time) if delivery.HasField("next_attempt_time") else "-",
        delivery.last_error or "-",
    ]


@app.command()
def redeliver(
    name: Annotated[str, typer.Argument(help="deliveries/{delivery}, or its last part alone.")],
    endpoint: options.Endpoint = None,
) -> None:
    """Has a delivery tried again at once, under the same id."""

    async def command() -> None:
        async with _connect(endpoint) as (stub, calls):
            request = webhook_pb2.RedeliverRequest(name=named("deliveries", name))
            again = await calls.unary(stub.Redeliver, request, deadline=DEADLINE)
        out.print(f"{again.name} is tried again.")

    failures.run(command())


@admin.command()
def apply(
    tenant: Tenant,
    url: Annotated[str, typer.Option(help="https:// address. Default: only those that requests name.")] = "",
    include_prompt: Annotated[bool, typer.Option("--include-prompt", help="Sends the texts, too.")] = False,
    rotate_secret: Annotated[bool, typer.Option("--rotate-secret", help="The old one signs, too, for a day.")] = False,
    endpoint: options.Endpoint = None,
    json: options.Json = False,
) -> None:
    """Creates a tenant's webhook or changes it; a new secret is printed, this once."""
    webhook = webhook_pb2.Webhook(tenant=named("tenants", tenant), url=url, include_prompt=include_prompt)

    async def command() -> None:
        async with connect(endpoint) as (stub, calls):
            request = admin_pb2.ApplyWebhookRequest(webhook=webhook, rotate_secret=rotate_secret)
            made = await calls.once(stub.ApplyWebhook, request, deadline=DEADLINE)
        if json:
            print_json(made)
        elif made.secret:
            out.print(made.secret, markup=False, soft_wrap=True)
            note(f"The secret of {made.webhook.tenant}: keep it, it is not shown again.")
        else:
            out.print(made.webhook.tenant)

    failures.run(command())


@admin.command("list")
def list_webhooks(endpoint: options.Endpoint = None, json: options.Json = False) -> None:
    """Lists webhooks by tenant."""

    async def command() -> None:
        async with connect(endpoint) as (stub, calls):
            answer = await calls.unary(stub.ListWebhooks, admin_pb2.ListWebhooksRequest(), deadline=DEADLINE)
        if json:
            for webhook in answer.webhooks:
                print_json(webhook)
            return
        rows = [
            [webhook.tenant, webhook.url or "-", "yes" if webhook.include_prompt else "no"]
            for webhook in answer.webhooks
        ]
        print_table(["TENANT", "URL", "PROMPT"], rows)

    failures.run(command())


@admin.command()
def delete(tenant: Tenant, endpoint: options.Endpoint = None) -> None:
    """Removes a tenant's webhook; what is still to be delivered is given up."""

    async def command() -> None:
        async with connect(endpoint) as (stub, calls):
            request = admin_pb2.DeleteWebhookRequest(tenant=named("tenants", tenant))
            await calls.unary(stub.DeleteWebhook, request, deadline=DEADLINE)
        out.print(f"Deleted the webhook of {request.tenant}.")

    failures.run(command())
