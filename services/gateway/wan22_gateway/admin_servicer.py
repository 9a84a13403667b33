"""AdminService: tenants, keys, webhooks and what is in quarantine, as messages."""

from __future__ import annotations

import json
import math
from dataclasses import fields
from typing import Any

import grpc
from google.protobuf.empty_pb2 import Empty

from wan22.errors import InvalidRequest
from wan22.names import check_generation, check_key, check_tenant
from wan22.v1 import admin_pb2, admin_pb2_grpc
from wan22_gateway import output_only
from wan22_gateway.identity.caller import EVERYBODY, audit
from wan22_gateway.identity.keys import digest, id_of, new_secret
from wan22_gateway.lifecycle import microseconds, timestamp
from wan22_gateway.store import keys, quarantine, tenants, webhooks
from wan22_gateway.store.database import Database, Transaction
from wan22_gateway.store.keys import KeyRow
from wan22_gateway.store.tenants import Limits, TenantRow
from wan22_gateway.store.webhooks import WebhookRow
from wan22_gateway.webhook_servicer import webhook_message
from wan22_gateway.webhooks.addresses import check_url
from wan22_gateway.webhooks.signature import new_secret as new_webhook_secret

Context = grpc.aio.ServicerContext[Any, Any]
MAX_DESCRIPTION = 200
TENANT_FIELDS = frozenset({"name", *(each.name for each in fields(Limits))})
KEY_FIELDS = frozenset({"tenant", "roles", "description", "expire_time"})
WEBHOOK_FIELDS = frozenset({"tenant", "url", "include_prompt"})
"""What a request may set of each."""


class AdminServicer(admin_pb2_grpc.AdminServiceServicer):
    """Keeps tenants and keys as rows, and shows and ends quarantine; makes webhooks."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def ApplyTenant(self, request: admin_pb2.ApplyTenantRequest, context: Context) -> admin_pb2.Tenant:
        """Creates or changes."""
        output_only.check(request.tenant, TENANT_FIELDS, "tenant")
        name = check_tenant(request.tenant.name, "tenant.name")
        limits = _limits(request.tenant)
        applied = await self._database.write(tenants.apply, name, limits)
        audit(f"tenants/{name} was applied.")
        return _tenant(applied)

    async def ListTenants(
        self, request: admin_pb2.ListTenantsRequest, context: Context
    ) -> admin_pb2.ListTenantsResponse:
        """Reads all."""
        rows = await self._database.read(tenants.list_all)
        return admin_pb2.ListTenantsResponse(tenants=[_tenant(row) for row in rows])

    async def DeleteTenant(self, request: admin_pb2.DeleteTenantRequest, context: Context) -> Empty:
        """Removes it with its keys."""
        name = check_tenant(request.name)
        await self._database.write(tenants.remove, name)
        audit(f"tenants/{name} was deleted with its keys.")
        return Empty()

    async def CreateKey(self, request: admin_pb2.CreateKeyRequest, context: Context) -> admin_pb2.CreateKeyResponse:
        """Draws a secret and stores its digest."""
        key = request.key
        output_only.check(key, KEY_FIELDS, "key")
        tenant = check_tenant(key.tenant, "key.tenant")
        if not key.roles or not set(key.roles) <= {admin_pb2.USER, admin_pb2.OPERATOR, admin_pb2.ADMIN}:
            raise InvalidRequest("roles: give at least one of USER, OPERATOR and ADMIN.", field="key.roles")
        if len(key.description) > MAX_DESCRIPTION or "\0" in key.description:
            text = f"description has {len(key.description)} characters: use at most {MAX_DESCRIPTION}, none NUL."
            raise InvalidRequest(text, field="key.description")
        secret = new_secret()
        expire = microseconds(key.expire_time, "key.expire_time") if key.HasField("expire_time") else None

        def add(tx: Transaction) -> KeyRow:
            if expire is not None and expire <= tx.now:
                raise InvalidRequest("expire_time is over: use a later one, or none.", field="key.expire_time")
            tenants.get(tx, tenant)
            return keys.add(
                tx,
                digest=digest(secret),
                key_id=id_of(secret),
                tenant=tenant,
                roles=key.roles,
                description=key.description,
                expire_time=expire,
            )

        made = _key(await self._database.write(add))
        roles = ", ".join(admin_pb2.Role.Name(role) for role in made.roles)
        until = f"until {made.expire_time.ToJsonString()}" if made.HasField("expire_time") else "without an end"
        audit(f"{made.name} of {made.tenant} was made, for {roles}, {until}.")
        return admin_pb2.CreateKeyResponse(key=made, secret=secret)

    async def ListKeys(self, request: admin_pb2.ListKeysRequest, context: Context) -> admin_pb2.ListKeysResponse:
        """Reads all, or one tenant's."""
        tenant = check_tenant(request.tenant, "tenant") if request.tenant else ""
        rows = await self._database.read(keys.list_all, tenant)
        return admin_pb2.ListKeysResponse(keys=[_key(row) for row in rows])

    async def RevokeKey(self, request: admin_pb2.RevokeKeyRequest, context: Context) -> admin_pb2.Key:
        """Ends it."""
        revoked = _key(await self._database.write(keys.revoke, check_key(request.name)))
        audit(f"{revoked.name} of {revoked.tenant} was revoked.")
        return revoked

    async def ListQuarantined(
        self, request: admin_pb2.ListQuarantinedRequest, context: Context
    ) -> admin_pb2.ListQuarantinedResponse:
        """Reads the evidence."""
        found = await self._database.read(quarantine.list_all, released=request.show_released)
        return admin_pb2.ListQuarantinedResponse(quarantined=found)

    async def ReleaseQuarantined(
        self, request: admin_pb2.ReleaseQuarantinedRequest, context: Context
    ) -> admin_pb2.Quarantined:
        """Takes its like again."""
        generation = check_generation(request.name).removeprefix("generations/")
        released = await self._database.write(quarantine.release, generation)
        audit(f"generations/{generation} was released from quarantine.")
        return released

    async def ApplyWebhook(
        self, request: admin_pb2.ApplyWebhookRequest, context: Context
    ) -> admin_pb2.ApplyWebhookResponse:
        """Draws a secret where one is needed, and stores it."""
        wanted = request.webhook
        output_only.check(wanted, WEBHOOK_FIELDS, "webhook")
        tenant = check_tenant(wanted.tenant, "webhook.tenant")
        url = check_url(wanted.url, "webhook.url") if wanted.url else ""
        secret = new_webhook_secret()

        def write(tx: Transaction) -> tuple[WebhookRow, bool]:
            if tenant != EVERYBODY.tenant:
                tenants.get(tx, tenant)
            return webhooks.apply(
                tx,
                tenant,
                url=url,
                include_prompt=wanted.include_prompt,
                secret=secret,
                rotate=request.rotate_secret,
            )

        row, is_new = await self._database.write(write)
        audit(f"The webhook of tenants/{tenant} was applied, {'with a new secret' if is_new else 'its secret kept'}.")
        return admin_pb2.ApplyWebhookResponse(webhook=webhook_message(row), secret=secret if is_new else "")

    async def ListWebhooks(
        self, request: admin_pb2.ListWebhooksRequest, context: Context
    ) -> admin_pb2.ListWebhooksResponse:
        """Reads all."""
        rows = await self._database.read(webhooks.list_all)
        return admin_pb2.ListWebhooksResponse(webhooks=[webhook_message(row) for row in rows])

    async def DeleteWebhook(self, request: admin_pb2.DeleteWebhookRequest, context: Context) -> Empty:
        """Removes it with its secret."""
        tenant = check_tenant(request.tenant, "tenant")
        await self._database.write(webhooks.remove, tenant)
        audit(f"The webhook of tenants/{tenant} was deleted with its secret.")
        return Empty()


def _limits(tenant: admin_pb2.Tenant) -> Limits:
    weight = tenant.weight if tenant.HasField("weight") else 1.0
    if not 0.01 <= weight <= 1000:
        raise InvalidRequest(f"weight is {weight}: use 0.01 to 1000.", field="tenant.weight")
    queued = tenant.max_queued if tenant.HasField("max_queued") else None
    running = tenant.max_running if tenant.HasField("max_running") else None
    seconds = tenant.gpu_seconds_per_day if tenant.HasField("gpu_seconds_per_day") else None
    if queued is not None and queued < 0:
        raise InvalidRequest(f"max_queued is {queued}: use 0 or more.", field="tenant.max_queued")
    if running is not None and running < 1:
        raise InvalidRequest(f"max_running is {running}: use 1 or more.", field="tenant.max_running")
    if seconds is not None and not (seconds >= 0 and math.isfinite(seconds)):
        text = f"gpu_seconds_per_day is {seconds}: use 0 or more."
        raise InvalidRequest(text, field="tenant.gpu_seconds_per_day")
    kept = tenant.max_media_bytes if tenant.HasField("max_media_bytes") else None
    if kept is not None and kept < 0:
        raise InvalidRequest(f"max_media_bytes is {kept}: use 0 or more.", field="tenant.max_media_bytes")
    return Limits(weight, queued, running, seconds, kept)


def _tenant(row: TenantRow) -> admin_pb2.Tenant:
    return admin_pb2.Tenant(
        name=f"tenants/{row.name}",
        weight=row.weight,
        max_queued=row.max_queued,
        max_running=row.max_running,
        gpu_seconds_per_day=row.gpu_seconds_per_day,
        max_media_bytes=row.max_media_bytes,
        create_time=timestamp(row.create_time),
        declared=row.declared,
    )


def _key(row: KeyRow) -> admin_pb2.Key:
    return admin_pb2.Key(
        name=f"keys/{row.id}",
        tenant=f"tenants/{row.tenant}",
        roles=json.loads(row.roles),
        description=row.description,
        create_time=timestamp(row.create_time),
        expire_time=None if row.expire_time is None else timestamp(row.expire_time),
        revoke_time=None if row.revoke_time is None else timestamp(row.revoke_time),
        declared=row.declared,
    )
