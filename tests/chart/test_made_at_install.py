"""Keys and certificates that the chart makes: services serve by them, and let the right callers in."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest

from wan22.client import Client
from wan22.errors import NotFound, PermissionDenied, Unauthenticated
from wan22.model_client import ModelClient
from wan22.tls import Tls
from wan22_gateway.gateway import serve as serve_gateway
from wan22_gateway.settings import GatewaySettings
from wan22_registry.registry import serve as serve_registry
from wan22_registry.settings import RegistrySettings
from wan22_testing.chart import Chart


@pytest.fixture(scope="module")
def secrets(chart: Chart) -> dict[str, dict[str, Any]]:
    return {
        one["metadata"]["name"]: one for one in chart.objects("--set=gateway.kedaPort=50053") if one["kind"] == "Secret"
    }


def written(secrets: dict[str, dict[str, Any]], role: str, folder: Path) -> Tls:
    """A role's Secret, as it is mounted."""
    place = folder / role
    place.mkdir()
    for name, content in secrets[f"wan22-{role}-tls"]["data"].items():
        (place / name).write_bytes(base64.b64decode(content))
    return Tls(place / "ca.crt", place / "tls.crt", place / "tls.key")


async def test_a_gateway_takes_the_made_key_over_tls_at_the_names_of_its_certificate(
    secrets: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    tls, keys = written(secrets, "gateway", tmp_path), secrets["wan22-keys"]["stringData"]
    (tmp_path / "tenants.json").write_text(keys["tenants.json"])
    settings = GatewaySettings(
        port=0, health_port=0, http_port=0, tls_ca=tls.ca, tls_cert=tls.cert, tls_key=tls.key,
        store=tmp_path / "store", results=str(tmp_path / "videos"), tenants_file=tmp_path / "tenants.json",
    )  # fmt: skip
    async with serve_gateway(settings) as serving:
        endpoint = f"localhost:{serving.port}"
        async with Client(endpoint, keys["admin"], Tls(tls.ca)) as admin:
            assert await admin.variants() == []
            assert (await admin.quota()).tenant == "tenants/default"
        async with Client(endpoint, keys["operator"], Tls(tls.ca)) as operator:
            with pytest.raises(PermissionDenied):
                await operator.variants()
        async with Client(endpoint, "wan22_" + "0" * 43, Tls(tls.ca)) as stranger:
            with pytest.raises(Unauthenticated):
                await stranger.variants()


async def test_a_registry_lets_in_the_made_administrator_and_publisher_by_their_roles_and_no_keda(
    secrets: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    tls = written(secrets, "registry", tmp_path)
    settings = RegistrySettings(
        port=0, health_port=0, root=tmp_path / "models", tls_ca=tls.ca, tls_cert=tls.cert, tls_key=tls.key
    )
    async with serve_registry(settings) as server:
        target = f"127.0.0.1:{server.port}"
        async with ModelClient(target, written(secrets, "admin", tmp_path)) as admin:
            with pytest.raises(NotFound):
                await admin.resolve("nothing")
        async with ModelClient(target, written(secrets, "publisher", tmp_path)) as publisher:
            with pytest.raises(PermissionDenied, match="may not call DeleteVersion: admin may"):
                await publisher.delete("models/nothing")
        async with ModelClient(target, written(secrets, "keda", tmp_path)) as keda:
            with pytest.raises(PermissionDenied, match="A certificate of keda may not call"):
                await keda.resolve("nothing")
