from __future__ import annotations

import asyncio
import json
import math
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from wan22.errors import FailedPrecondition, NotFound, PermissionDenied, Unauthenticated
from wan22_gateway.identity import declared, keys
from wan22_gateway.identity.access import Access
from wan22_gateway.identity.caller import ADMIN, OPERATOR, USER, Caller, caller
from wan22_gateway.store import keys as key_store
from wan22_gateway.store import tenants
from wan22_gateway.store.database import Database, Transaction
from wan22_gateway.store.keys import Holder
from wan22_gateway.store.schema import keys as key_table
from wan22_gateway.store.tenants import Limits

from . import rows

CREATE = "/wan22.v1.GenerationService/CreateGeneration"


def make_key(tx: Transaction, tenant: str, *roles: int, expire_time: int | None = None) -> str:
    secret = keys.new_secret()
    key_store.add(
        tx,
        digest=keys.digest(secret),
        key_id=keys.id_of(secret),
        tenant=tenant,
        roles=roles,
        description="",
        expire_time=expire_time,
    )
    return secret


async def ask(access: Access, method: str, credential: str) -> Caller:
    await access.guard(method, [("authorization", f"Bearer {credential}")])
    return caller()


def test_keys_are_long_random_and_known_by_their_start() -> None:
    secrets = {keys.new_secret() for _ in range(200)}
    assert len(secrets) == 200
    for secret in secrets:
        assert keys.is_well_formed(secret)
        assert secret.removeprefix("wan22_").startswith(keys.id_of(secret))
    assert not keys.is_well_formed("wan22_short")
    assert not keys.is_well_formed("wan22_" + "é" * 43)


async def test_a_key_is_its_tenant_with_its_roles_and_only_its_digest_is_stored(database: Database) -> None:
    access = Access(database, None)
    secret = await database.write(lambda tx: make_key(tx, "alice", USER))
    assert await ask(access, CREATE, secret) == Caller("alice", frozenset({USER}))
    with pytest.raises(PermissionDenied, match="needs the role OPERATOR"):
        await ask(access, "/wan22.v1.PoolService/ListPools", secret)
    admin = await database.write(lambda tx: make_key(tx, "alice", ADMIN))
    assert (await ask(access, "/wan22.v1.PoolService/ListPools", admin)).roles == {ADMIN}
    stored = str(await database.read(lambda tx: tx.execute(select(key_table)).all()))
    assert secret not in stored
    assert keys.digest(secret) in stored


async def test_a_revoked_or_expired_key_is_refused_at_the_next_call(database: Database) -> None:
    access = Access(database, None)
    secret = await database.write(lambda tx: make_key(tx, "alice", USER))
    await ask(access, CREATE, secret)
    await database.write(key_store.revoke, keys.id_of(secret))
    old = await database.write(lambda tx: make_key(tx, "alice", USER, expire_time=tx.now))
    for bad in (secret, old, keys.new_secret()):
        with pytest.raises(Unauthenticated, match="not known here, is revoked or has expired"):
            await ask(access, CREATE, bad)


@pytest.mark.parametrize("metadata", [[], [("authorization", "Basic x")], [("authorization", "Bearer ")], [("a", "b")]])
async def test_without_a_bearer_nobody_is_let_in(database: Database, metadata: list[tuple[str, str]]) -> None:
    with pytest.raises(Unauthenticated, match="WAN22_API_KEY"):
        await Access(database, None).guard(CREATE, metadata)


async def test_a_tenant_is_removed_with_its_keys_unless_it_has_generations(database: Database) -> None:
    for name in ("alice", "bob"):
        await database.write(tenants.apply, name, Limits(weight=2.0))
    alices, bobs = [await database.write(make_key, name, USER) for name in ("alice", "bob")]
    await database.write(rows.add_pool)
    await database.write(lambda tx: rows.add_generation(tx, tenant="alice"))
    with pytest.raises(FailedPrecondition, match="has generations"):
        await database.write(tenants.remove, "alice")
    await database.write(tenants.remove, "bob")
    with pytest.raises(NotFound):
        await database.read(tenants.get, "bob")
    assert await database.read(key_store.find, keys.digest(alices)) is not None
    assert await database.read(key_store.find, keys.digest(bobs)) is None


def write(path: Path, **content: Any) -> declared.Declared:
    path.write_text(json.dumps(content))
    return declared.read(path)


async def test_a_file_declares_tenants_and_keys_and_what_leaves_it_ends(database: Database, tmp_path: Path) -> None:
    first, second = keys.new_secret(), keys.new_secret()
    path = tmp_path / "tenants.json"
    alice = {"name": "alice", "weight": 3, "max_queued": 5}
    by_digest = {"tenant": "alice", "roles": ["user"], "id": keys.id_of(second), "sha256": keys.digest(second)}
    whole = write(path, tenants=[alice], keys=[{"tenant": "alice", "roles": ["operator"], "key": first}, by_digest])
    for _ in range(2):
        await database.write(declared.apply, whole)
    assert await database.read(tenants.limits_of, "alice") == Limits(3.0, 5)
    for key, role in ((first, OPERATOR), (second, USER)):
        holder = await database.read(key_store.find, keys.digest(key))
        assert holder == Holder(Caller("alice", frozenset({role})), math.inf)
    with pytest.raises(FailedPrecondition, match="change it there"):
        await database.write(tenants.apply, "alice", Limits())
    with pytest.raises(FailedPrecondition, match="take it out there"):
        await database.write(key_store.revoke, keys.id_of(first))
    made = await database.write(lambda tx: make_key(tx, "alice", USER))
    await database.write(declared.apply, write(path, tenants=[alice], keys=[by_digest]))
    assert await database.read(key_store.find, keys.digest(first)) is None
    assert await database.read(key_store.find, keys.digest(made)) is not None


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ({"tenants": [{"name": "A!"}], "keys": []}, "tenants.0.name"),
        ({"tenants": [], "keys": [{"tenant": "bob", "roles": ["user"], "key": keys.new_secret()}]}, "not in the file"),
        ({"tenants": [{"name": "bob"}], "keys": [{"tenant": "bob", "roles": ["user"]}]}, "either key, or id"),
        ({"tenants": [{"name": "bob"}], "keys": [{"tenant": "bob", "roles": ["king"], "key": "x"}]}, "keys.0.roles"),
        ({"tenants": [{"name": "bob", "wieght": 2}], "keys": []}, "wieght"),
    ],
)
def test_a_bad_file_is_refused_naming_the_fault_and_no_secret(tmp_path: Path, content: Any, problem: str) -> None:
    with pytest.raises(FailedPrecondition, match=problem) as caught:
        write(tmp_path / "tenants.json", **content)
    assert "wan22_" not in caught.value.message.replace("wan22_ key", "")


async def test_a_changed_file_takes_effect_and_a_bad_one_does_not(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(declared, "LOOK_SECONDS", 0.01)
    path = tmp_path / "tenants.json"
    before = write(path, tenants=[{"name": "alice"}], keys=[])
    await database.write(declared.apply, before)
    following = asyncio.create_task(declared.follow(database, path, before))
    path.write_text("{")
    with database.listen("queue") as changed:
        async with asyncio.timeout(60):
            while "stays in force" not in caplog.text:  # noqa: ASYNC110  # a log entry wakes nobody
                await asyncio.sleep(0.01)
            assert await database.read(tenants.exists, "alice")
            write(path, tenants=[{"name": "alice"}, {"name": "bob"}], keys=[])
            await changed.wait()
    assert await database.read(tenants.exists, "bob")
    following.cancel()
