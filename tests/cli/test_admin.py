from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from wan22_gateway.gateway import serve
from wan22_gateway.identity.keys import id_of, new_secret
from wan22_gateway.settings import GatewaySettings
from wan22_testing.wan22_command import Wan22Command

ADMIN = new_secret()


@pytest.fixture
async def target(tmp_path: Path) -> AsyncIterator[str]:
    declared = {"tenants": [{"name": "platform"}], "keys": [{"tenant": "platform", "roles": ["admin"], "key": ADMIN}]}
    (tmp_path / "tenants.json").write_text(json.dumps(declared))
    settings = GatewaySettings(
        port=0,
        health_port=0,
        http_port=0,
        registry="localhost:1",
        store=tmp_path / "gateway",
        results=tmp_path / "videos",
        tenants_file=tmp_path / "tenants.json",
    )
    async with serve(settings) as server:
        yield f"127.0.0.1:{server.port}"


async def test_a_tenant_gets_a_key_uses_it_and_loses_it(
    tmp_path: Path, target: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "wan22_gateway.audit")
    admin = Wan22Command(tmp_path, WAN22_ENDPOINT=target, WAN22_API_KEY=ADMIN)
    limits = ("--weight", "2", "--max-queued", "7", "--max-media-bytes", "2000")
    made = await admin("admin", "tenants", "apply", "studio", *limits)
    assert (made.exit_code, made.out) == (0, "tenants/studio\n"), made.err
    listed = await admin("admin", "tenants", "list")
    assert [line.split() for line in listed.out.splitlines()[1:]] == [
        ["tenants/platform", "1", "-", "-", "-", "-"],
        ["tenants/studio", "2", "7", "-", "-", "2", "kB"],
    ]
    made = await admin("admin", "keys", "new", "studio", "--description", "for tests", "--days", "1")
    assert made.exit_code == 0, made.err
    secret = made.out.strip()
    studio = Wan22Command(tmp_path, WAN22_ENDPOINT=target, WAN22_API_KEY=secret)
    used = await studio("usage")
    assert used.out.splitlines()[:2] == ["tenants/studio, weight 2", "queued 0 of 7, running 0 of any"]
    assert (await studio("usage", "--json")).json()["quota"]["tenant"] == "tenants/studio"
    refused = await studio("admin", "keys", "list")
    assert (refused.exit_code, "needs the role ADMIN" in refused.err) == (1, True)
    (key,) = (await admin("admin", "keys", "list", "--tenant", "studio", "--json")).out.splitlines()
    assert secret not in key
    name = json.loads(key)["name"]
    assert (await admin("admin", "keys", "revoke", name)).out == f"Revoked {name}.\n"
    assert "is revoked" in (await studio("usage")).err
    assert "revoked" in (await admin("admin", "keys", "list")).out
    assert (await admin("admin", "tenants", "delete", "studio")).out == "Deleted tenants/studio.\n"
    assert "no credentials" not in (await admin("admin", "tenants", "list")).err
    by = f"By tenants/platform with keys/{id_of(ADMIN)}."
    audited = [record.getMessage() for record in caplog.records if record.name == "wan22_gateway.audit"]
    assert audited[0] == f"tenants/studio was applied. {by}"
    assert audited[1].startswith(f"{name} of tenants/studio was made, for USER, until 20")
    assert audited[1].endswith(f"Z. {by}")
    assert audited[2:] == [
        f"{name} of tenants/studio was revoked. {by}",
        f"tenants/studio was deleted with its keys. {by}",
    ]
    assert secret not in caplog.text


async def test_wrong_limits_are_bad_usage(tmp_path: Path, target: str) -> None:
    admin = Wan22Command(tmp_path, WAN22_ENDPOINT=target, WAN22_API_KEY=ADMIN)
    for flags in (["--weight", "0"], ["--max-running", "0"], ["--gpu-seconds-per-day", "-1"]):
        assert (await admin("admin", "tenants", "apply", "studio", *flags)).exit_code == 2
    missing = await admin("admin", "keys", "new", "nobody")
    assert (missing.exit_code, "make it first" in missing.err) == (1, True)
