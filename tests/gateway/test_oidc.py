"""Tokens of an issuer over a real gateway: by gRPC and HTTP, beside keys, mapped to tenants and roles."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from wan22.client import Client
from wan22.errors import NotFound, PermissionDenied, Reason, Unauthenticated
from wan22_gateway.identity.keys import new_secret

from .scripted_worker import T2V, Place, ScriptedWorkerServicer, place_with
from .test_tokens import AUDIENCE, ISSUER, KEY, OTHER_KEY, token, write_keys

pytestmark = pytest.mark.asyncio(loop_scope="module")
OPERATOR, BOBS_KEY = new_secret(), new_secret()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def place(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Place]:
    folder: Path = tmp_path_factory.mktemp("oidc")
    write_keys(folder / "jwks.json", {"k1": KEY})
    tenants = {
        "tenants": [{"name": "alice"}, {"name": "bob"}],
        "keys": [
            {"tenant": "bob", "roles": ["user"], "key": BOBS_KEY},
            {"tenant": "bob", "roles": ["operator"], "key": OPERATOR},
        ],
    }
    (folder / "tenants.json").write_text(json.dumps(tenants))
    terms: dict[str, Any] = {
        "auth": "on",
        "tenants_file": folder / "tenants.json",
        "oidc_issuer": ISSUER,
        "oidc_audience": AUDIENCE,
        "oidc_jwks": str(folder / "jwks.json"),
        "oidc_tenant_claim": "org",
        "oidc_roles_claim": "groups",
    }
    async with place_with(folder, ScriptedWorkerServicer(), api_key=OPERATOR, **terms) as served:
        yield served


def of(tenant: str, **claims: Any) -> str:
    return token(**{"tenant": None, "org": tenant, **claims})


async def test_a_token_and_a_key_of_one_tenant_see_the_same_and_another_tenants_token_nothing(place: Place) -> None:
    target = place.client.endpoint
    async with Client(target, of("bob")) as by_token, Client(target, BOBS_KEY) as by_key:
        made = await by_token.create(variant=T2V, prompt="x")
        assert (await by_key.wait(made.name)).name == made.name
        assert (await by_token.quota()).tenant == "tenants/bob"
    async with Client(target, of("alice")) as alice:
        with pytest.raises(NotFound):
            await alice.get(made.name)
        assert [found async for found in alice.list()] == []
    async with httpx.AsyncClient(base_url=place.http) as http:
        for bearer, status in ((of("bob"), 200), (of("alice"), 404)):
            answer = await http.get(f"/{made.name}", headers={"Authorization": f"Bearer {bearer}"})
            assert answer.status_code == status


@pytest.mark.parametrize(
    "bearer",
    [
        of("carol"),  # a tenant that nobody has made
        of("alice", iss="https://other.test"),
        of("alice", aud="somebody else"),
        of("alice", exp=1),
        of("alice", key=OTHER_KEY),
        token(),  # which names its tenant by another claim than the settings do
    ],
)
async def test_a_token_that_is_not_good_here_lets_nobody_in_by_either_port(place: Place, bearer: str) -> None:
    async with Client(place.client.endpoint, bearer) as client:
        with pytest.raises(Unauthenticated) as caught:
            await client.quota()
        assert caught.value.reason is Reason.BAD_CREDENTIALS
    async with httpx.AsyncClient(base_url=place.http, headers={"Authorization": f"Bearer {bearer}"}) as http:
        answer = await http.get("/models")
    assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, "Bearer")


async def test_roles_are_those_of_the_claim_and_a_users_without_one(place: Place) -> None:
    target = place.client.endpoint
    async with httpx.AsyncClient(base_url=place.http) as http:
        for groups, models, metrics in (
            (None, 200, 403),
            (["user"], 200, 403),
            (["operator"], 403, 200),
            (["operator", "user"], 200, 200),
            (["admin"], 200, 200),
            (["cooks"], 403, 403),
        ):
            headers = {"Authorization": f"Bearer {of('alice', groups=groups)}"}
            answers = [(await http.get(path, headers=headers)).status_code for path in ("/models", "/metrics")]
            assert answers == [models, metrics], groups
    async with Client(target, of("alice", groups=["operator"])) as operator:
        with pytest.raises(PermissionDenied) as caught:
            await operator.quota()
        assert caught.value.reason is Reason.ROLE_MISSING
