from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from wan22.channels import open_channel
from wan22.errors import PermissionDenied, Reason
from wan22.model_client import ModelClient
from wan22.status import from_rpc_error
from wan22.v1 import model_pb2, model_pb2_grpc
from wan22_registry.registry import serve
from wan22_registry.settings import RegistrySettings
from wan22_testing.authority import Authority

from . import model_folder

SERVICE = model_pb2.DESCRIPTOR.services_by_name["ModelService"]
READING = {"FindMissingBlobs", "ListModels", "GetVersion", "ResolveVersion", "ReadBlob"}
PUBLISHING = {"PushBlob", "PublishVersion"}
ALL = {method.name for method in SERVICE.methods}
READERS = ("gateway", "worker", "node-cache", "operator")
MAY = {**dict.fromkeys(READERS, READING), "publisher": READING | PUBLISHING, "admin": ALL, "keda": set()}
"""Of ModelService's methods, what the holder of each certificate may call."""


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    (tmp_path / "pki").mkdir()
    return Authority(tmp_path / "pki")


def settings(authority: Authority, root: Path, **given: Any) -> RegistrySettings:
    tls = authority.issue("registry")
    files: dict[str, Any] = {"tls_ca": tls.ca, "tls_cert": tls.cert, "tls_key": tls.key}
    return RegistrySettings(root=root, port=0, health_port=0, **files, **given)


@pytest.fixture
async def guarded(authority: Authority, root: Path) -> AsyncIterator[str]:
    """host:port of a registry that asks for certificates."""
    async with serve(settings(authority, root)) as server:
        yield f"127.0.0.1:{server.port}"


async def denied(channel: grpc.aio.Channel, method: Any) -> bool:
    """Whether a caller may not call a method at all; what else is wrong with an empty request does not count."""
    stub: Any = getattr(model_pb2_grpc.ModelServiceStub(channel), method.name)
    request = getattr(model_pb2, method.input_type.name)()
    try:
        call = stub(iter([request]) if method.client_streaming else request, timeout=10)
        if method.server_streaming:
            async for _ in call:
                pass
        else:
            await call
    except grpc.aio.AioRpcError as error:
        return from_rpc_error(error).reason is Reason.ROLE_MISSING
    return False


def audited(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "wan22_registry.audit"]


@pytest.mark.parametrize("role", MAY)
async def test_each_role_may_call_what_it_is_for_and_nothing_else(
    guarded: str, authority: Authority, role: str
) -> None:
    async with open_channel(guarded, authority.issue(role), role="registry") as channel:
        allowed = {method.name for method in SERVICE.methods if not await denied(channel, method)}
    assert allowed == MAY[role]


async def test_a_publisher_publishes_what_workers_read_and_an_administrator_deletes(
    guarded: str, authority: Authority, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "wan22_registry.audit")
    folder = model_folder.write(tmp_path / "m")
    async with ModelClient(guarded, authority.issue("worker")) as worker:
        with pytest.raises(PermissionDenied, match="worker may not call PushBlob: admin, publisher may"):
            await worker.push_folder(folder, model="m", variant="t2v-a14b-tiny", tags=["latest"])
    async with ModelClient(guarded, authority.issue("publisher")) as publisher:
        version = await publisher.push_folder(folder, model="m", variant="t2v-a14b-tiny", tags=["latest"])
        with pytest.raises(PermissionDenied, match="may not call DeleteVersion: admin may"):
            await publisher.delete(version.name)
    async with ModelClient(guarded, authority.issue("worker")) as worker:
        assert await worker.resolve("m") == version
    async with ModelClient(guarded, authority.issue("admin")) as admin:
        await admin.delete(version.name)
        assert await admin.list_models() == []
    published, deleted = audited(caplog)
    assert published.startswith(f"Published {version.name}, tags latest. By the certificate ")
    assert published.endswith(" publisher.")
    assert deleted.startswith(f"Deleted {version.name}, and 5 blobs")
    assert "admin" in deleted


async def test_who_publishes_and_deletes_is_set_by_name(authority: Authority, root: Path, tmp_path: Path) -> None:
    named = settings(authority, root, tls_peers="ci, worker", tls_publishers="ci", tls_admins="security")
    folder = model_folder.write(tmp_path / "m")
    async with serve(named) as server:
        target = f"127.0.0.1:{server.port}"
        async with ModelClient(target, authority.issue("ci")) as ci:
            version = await ci.push_folder(folder, model="m", variant="t2v-a14b-tiny", tags=["latest"])
        async with ModelClient(target, authority.issue("admin")) as admin:
            with pytest.raises(PermissionDenied, match="may not call DeleteVersion: security may"):
                await admin.delete(version.name)
        async with ModelClient(target, authority.issue("security")) as security:
            await security.delete(version.name)


async def test_without_certificates_everybody_may_do_everything(
    client: ModelClient, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "wan22_registry.audit")
    folder = model_folder.write(tmp_path / "m")
    version = await client.push_folder(folder, model="m", variant="t2v-a14b-tiny", tags=["latest"])
    await client.delete(version.name)
    assert audited(caplog)[-1].endswith("no other version has. By a caller without a certificate.")
