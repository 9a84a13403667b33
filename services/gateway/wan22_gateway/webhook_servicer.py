"""WebhookService: a tenant's webhook and deliveries, as messages."""

from __future__ import annotations

from typing import Any

import grpc
from sqlalchemy import select

from wan22.errors import InvalidRequest
from wan22.names import check_delivery
from wan22.v1 import webhook_pb2, webhook_pb2_grpc
from wan22_gateway import page_token
from wan22_gateway.identity.caller import caller
from wan22_gateway.lifecycle import timestamp
from wan22_gateway.store import webhooks
from wan22_gateway.store.database import Database, Transaction
from wan22_gateway.store.schema import identity
from wan22_gateway.store.webhooks import DeliveryRow, WebhookRow

Context = grpc.aio.ServicerContext[Any, Any]
DEFAULT_PAGE, MAX_PAGE = 100, 1000


class WebhookServicer(webhook_pb2_grpc.WebhookServiceServicer):
    """Shows what there is, and has deliveries tried again."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def GetWebhook(self, request: webhook_pb2.GetWebhookRequest, context: Context) -> webhook_pb2.Webhook:
        """Reads the caller's."""
        return webhook_message(await self._database.read(webhooks.get, caller().tenant))

    async def ListDeliveries(
        self, request: webhook_pb2.ListDeliveriesRequest, context: Context
    ) -> webhook_pb2.ListDeliveriesResponse:
        """Reads the caller's."""
        if not 0 <= request.page_size <= MAX_PAGE:
            text = f"page_size is {request.page_size}: use 1 to {MAX_PAGE}, or 0 for {DEFAULT_PAGE}."
            raise InvalidRequest(text, field="page_size")
        states = webhook_pb2.Delivery.State
        if request.state not in states.values():
            raise InvalidRequest(f"state is {request.state}: use PENDING, DELIVERED or DEAD.", field="state")
        state = states.Name(request.state) if request.state else ""
        size = request.page_size or DEFAULT_PAGE
        tenant = caller().tenant

        def read(tx: Transaction) -> webhook_pb2.ListDeliveriesResponse:
            key = tx.execute(select(identity.c.page_key)).scalar_one()
            after = page_token.decode(key, tenant, request, str)
            rows = webhooks.page(tx, tenant, state, size + 1, after)
            response = webhook_pb2.ListDeliveriesResponse(deliveries=[_delivery(row) for row in rows[:size]])
            if len(rows) > size:
                response.next_page_token = page_token.encode(key, tenant, webhooks.place(rows[size - 1]), request)
            return response

        return await self._database.read(read)

    async def Redeliver(self, request: webhook_pb2.RedeliverRequest, context: Context) -> webhook_pb2.Delivery:
        """Makes it due now."""
        delivery = check_delivery(request.name)
        return _delivery(await self._database.write(webhooks.redeliver, caller().tenant, delivery))


def webhook_message(row: WebhookRow) -> webhook_pb2.Webhook:
    """A webhook without its secret."""
    message = webhook_pb2.Webhook(
        tenant=f"tenants/{row.tenant}",
        url=row.url,
        include_prompt=row.include_prompt,
        secret_create_time=timestamp(row.secret_create_time),
    )
    if row.previous_secret_expire_time is not None:
        message.previous_secret_expire_time.CopyFrom(timestamp(row.previous_secret_expire_time))
    return message


def _delivery(row: DeliveryRow) -> webhook_pb2.Delivery:
    message = webhook_pb2.Delivery(
        name=f"deliveries/{row.id}",
        state=webhook_pb2.Delivery.State.Value(row.state),
        generation=f"generations/{row.generation}",
        url=row.url,
        type=row.type,
        create_time=timestamp(row.create_time),
        attempt_count=row.attempt_count,
        last_error=row.last_error,
    )
    if row.end_time is not None:
        message.end_time.CopyFrom(timestamp(row.end_time))
    else:
        message.next_attempt_time.CopyFrom(timestamp(row.next_time))
    return message
