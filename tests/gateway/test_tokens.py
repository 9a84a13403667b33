from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from wan22.errors import Reason, Unauthenticated, Unavailable
from wan22_gateway.identity.caller import ADMIN, USER, Caller
from wan22_gateway.identity.tokens import Issuer, Tokens

ISSUER, AUDIENCE = "https://issuer.test", "wan22"
KEY, OTHER_KEY = (rsa.generate_private_key(public_exponent=65537, key_size=2048) for _ in range(2))


def write_keys(path: Path, keys: dict[str, rsa.RSAPrivateKey]) -> None:
    encoder = jwt.algorithms.RSAAlgorithm(jwt.algorithms.RSAAlgorithm.SHA256)
    entries = [
        {**encoder.to_jwk(key.public_key(), as_dict=True), "kid": kid, "use": "sig", "alg": "RS256"}
        for kid, key in keys.items()
    ]
    path.write_text(json.dumps({"keys": entries}))


def token(key: Any = KEY, kid: str = "k1", algorithm: str = "RS256", **changes: Any) -> str:
    claims = {"iss": ISSUER, "aud": AUDIENCE, "exp": time.time() + 60, "tenant": "alice", **changes}
    present = {name: value for name, value in claims.items() if value is not None}
    return jwt.encode(present, key, algorithm=algorithm, headers={"kid": kid})


@pytest.fixture
def jwks(tmp_path: Path) -> Path:
    path = tmp_path / "jwks.json"
    write_keys(path, {"k1": KEY})
    return path


@pytest.fixture
def tokens(jwks: Path) -> Tokens:
    return Tokens(Issuer(ISSUER, AUDIENCE, str(jwks), "tenant", "roles"))


async def test_a_good_token_is_its_tenants_user(tokens: Tokens) -> None:
    assert await tokens.caller(token()) == Caller("alice", frozenset({USER}))
    assert (await tokens.caller(token(roles=["admin", "cook"]))).roles == {ADMIN}
    assert (await tokens.caller(token(roles="user admin"))).roles == {USER, ADMIN}
    nothings: list[Any] = [[], "", {"admin": True}, 7]
    for nothing in nothings:
        assert (await tokens.caller(token(roles=nothing))).roles == frozenset()


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "https://other.test"},
        {"aud": "somebody else"},
        {"aud": None},
        {"exp": time.time() - 3600},
        {"exp": None},
        {"nbf": time.time() + 3600},
        {"tenant": None},
        {"tenant": ["alice"]},
        {"tenant": "alice\0"},
        {"key": OTHER_KEY},
        {"kid": "k2"},
    ],
    ids=lambda changes: next(iter(changes)),
)
async def test_a_bad_token_is_refused_with_its_reason(tokens: Tokens, changes: dict[str, Any]) -> None:
    with pytest.raises(Unauthenticated) as caught:
        await tokens.caller(token(**changes))
    assert caught.value.reason is Reason.BAD_CREDENTIALS


async def test_a_token_without_a_signature_or_signed_by_the_public_key_is_refused(tokens: Tokens) -> None:
    secret = b"x" * 64
    for forged in (token(None, algorithm="none"), token(secret, algorithm="HS256"), "a.b.c", "", "é"):
        with pytest.raises(Unauthenticated):
            await tokens.caller(forged)


async def test_a_new_key_of_the_issuer_is_found_but_not_looked_for_all_the_time(
    tokens: Tokens, jwks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await tokens.caller(token())
    write_keys(jwks, {"k1": KEY, "k2": OTHER_KEY})
    with pytest.raises(Unauthenticated, match="'k2'"):  # it has looked a moment ago
        await tokens.caller(token(OTHER_KEY, "k2"))
    monkeypatch.setattr("wan22_gateway.identity.tokens.PAUSE_SECONDS", 0.0)
    assert (await tokens.caller(token(OTHER_KEY, "k2"))).tenant == "alice"
    jwks.unlink()
    assert (await tokens.caller(token())).tenant == "alice"  # what it has is good for a while


async def test_without_the_issuers_keys_nobody_is_let_in_and_the_file_is_named(tmp_path: Path) -> None:
    missing = tmp_path / "none.json"
    tokens = Tokens(Issuer(ISSUER, AUDIENCE, str(missing), "tenant", "roles"))
    for _ in range(2):  # the second time without looking again, and still it is not the token that is at fault
        with pytest.raises(Unavailable, match=str(missing)):
            await tokens.caller(token())
