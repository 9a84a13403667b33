"""What administrators and operators set, and what is told of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
import pytest_asyncio
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from wan22.client import Client
from wan22.errors import InvalidRequest
from wan22.status import from_rpc_error
from wan22.v1 import admin_pb2, pool_pb2, webhook_pb2
from wan22_gateway.store import quarantine

from . import rows
from .any_rpc import rpc
from .scripted_worker import T2V, ScriptedWorkerServicer, gateway_with

pytestmark = pytest.mark.asyncio(loop_scope="module")
TENANT = admin_pb2.Tenant(name="tenants/studio")
KEY = admin_pb2.Key(tenant=TENANT.name, roles=[admin_pb2.USER])
WEBHOOK = webhook_pb2.Webhook(tenant=TENANT.name, url="https://studio.test/hook")
POOL = pool_pb2.Pool(name="pools/test.other", variant=T2V, model_version=rows.VERSION, max_workers=1)
NOW = Timestamp(seconds=1)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Client]:
    async with gateway_with(tmp_path_factory.mktemp("admin"), ScriptedWorkerServicer()) as opened:
        yield opened


def request_of(name: str, resource: Any, /, **set_too: Any) -> Message:
    """A request that sets more of its resource than it may."""
    changed = type(resource)()
    changed.CopyFrom(resource)
    changed.MergeFrom(type(resource)(**set_too))
    if name == "ApplyPool":
        return pool_pb2.ApplyPoolRequest(pool=changed)
    kind = getattr(admin_pb2, f"{name}Request")
    request: Message = kind(**{type(resource).__name__.lower(): changed})
    return request


@pytest.mark.parametrize(
    ("name", "resource", "set_too"),
    [
        ("ApplyTenant", TENANT, {"create_time": NOW}),
        ("ApplyTenant", TENANT, {"declared": True}),
        ("CreateKey", KEY, {"name": "keys/mine"}),
        ("CreateKey", KEY, {"create_time": NOW}),
        ("CreateKey", KEY, {"revoke_time": NOW}),
        ("CreateKey", KEY, {"declared": True}),
        ("ApplyWebhook", WEBHOOK, {"secret_create_time": NOW}),
        ("ApplyWebhook", WEBHOOK, {"previous_secret_expire_time": NOW}),
        ("ApplyPool", POOL, {"workers": [pool_pb2.PoolWorker(name="workers/w1")]}),
        ("ApplyPool", POOL, {"demand": pool_pb2.Demand()}),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else getattr(value, "name", value),
)
async def test_what_the_gateway_alone_sets_is_refused_by_name(
    client: Client, name: str, resource: Message, set_too: dict[str, Any]
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await rpc(client.endpoint, name, request_of(name, resource, **set_too), "")
    error = from_rpc_error(caught.value)
    assert isinstance(error, InvalidRequest)
    (field,) = set_too
    assert [violation.field for violation in error.violations] == [f"{type(resource).__name__.lower()}.{field}"]


@pytest.mark.parametrize("target", ["a..b:1", f"{64 * 'a'}:1", "localhost:²", "localhost:0", "localhost", ":1"])
async def test_a_worker_target_that_leads_nowhere_is_refused(client: Client, target: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError, match="is not host:port") as caught:
        await rpc(client.endpoint, "ApplyPool", request_of("ApplyPool", POOL, worker_targets=[target]), "")
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


CHANGES: list[tuple[str, Message]] = [
    ("ApplyTenant", admin_pb2.ApplyTenantRequest(tenant=TENANT)),
    ("CreateKey", admin_pb2.CreateKeyRequest(key=KEY)),
    ("ApplyWebhook", admin_pb2.ApplyWebhookRequest(webhook=WEBHOOK)),
    ("DeleteWebhook", admin_pb2.DeleteWebhookRequest(tenant=TENANT.name)),
    ("DeleteTenant", admin_pb2.DeleteTenantRequest(name=TENANT.name)),
]


async def test_each_change_that_an_administrator_makes_is_one_line_of_the_log_without_a_secret(
    client: Client, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level("INFO", "wan22_gateway.audit")
    monkeypatch.setattr(quarantine, "release", lambda _, generation: admin_pb2.Quarantined(generation=generation))
    key = ""
    generation = admin_pb2.ReleaseQuarantinedRequest(name="generations/00000000-0000-4000-8000-000000000000")
    changes = [*CHANGES, ("ReleaseQuarantined", generation)]
    changes.insert(2, ("RevokeKey", admin_pb2.RevokeKeyRequest()))
    methods = admin_pb2.DESCRIPTOR.services_by_name["AdminService"].methods_by_name
    assert {name for name in methods if not name.startswith("List")} == {name for name, _ in changes}
    for name, request in changes:
        caplog.clear()
        if isinstance(request, admin_pb2.RevokeKeyRequest):
            request.name = key
        (answer,) = await rpc(client.endpoint, name, request, "")
        (line,) = [record.getMessage() for record in caplog.records]
        assert line.endswith(" By tenants/default with no credentials.")
        if isinstance(answer, admin_pb2.CreateKeyResponse):
            key = answer.key.name
            assert key in line
        secret = getattr(answer, "secret", "")
        assert not secret or secret not in line
