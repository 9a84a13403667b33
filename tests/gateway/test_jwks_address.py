"""The issuer's keys by their address: a real HTTPS server that rotates them, goes away, and answers wrongly."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from wan22.errors import Unauthenticated, Unavailable
from wan22_gateway.identity import tokens as module
from wan22_gateway.identity.tokens import Issuer, Tokens
from wan22_testing.authority import Authority

from .test_tokens import AUDIENCE, ISSUER, KEY, OTHER_KEY, token, write_keys
from .webhook_receiver import Receiver, receiving


def key_set(folder: Path, keys: dict[str, rsa.RSAPrivateKey]) -> bytes:
    write_keys(folder / "jwks.json", keys)
    return (folder / "jwks.json").read_bytes()


@asynccontextmanager
async def issuing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, body: bytes, *statuses: str
) -> AsyncIterator[tuple[Receiver, Tokens]]:
    """An issuer whose certificate is one of the system's authorities, and who takes its tokens."""
    authority = Authority(folder)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.ca))
    async with receiving(authority.issue("issuer"), *statuses, body=body) as server:
        yield server, Tokens(Issuer(ISSUER, AUDIENCE, f"https://localhost:{server.port}/keys", "tenant", "roles"))


async def test_keys_are_fetched_once_and_again_for_a_new_one_of_a_rotation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with issuing(tmp_path, monkeypatch, key_set(tmp_path, {"k1": KEY})) as (server, tokens):
        for _ in range(3):
            assert (await tokens.caller(token())).tenant == "alice"
        assert [request.path for request in server.received] == ["/keys"]
        server.body = key_set(tmp_path, {"k2": OTHER_KEY})
        monkeypatch.setattr(module, "PAUSE_SECONDS", 0.0)
        assert (await tokens.caller(token(OTHER_KEY, "k2"))).tenant == "alice"
        with pytest.raises(Unauthenticated, match="'k1'"):  # the issuer has withdrawn it
            await tokens.caller(token())


async def test_an_issuer_that_is_away_lets_nobody_new_in_and_its_known_keys_count_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PAUSE_SECONDS", 0.0)
    async with issuing(tmp_path, monkeypatch, key_set(tmp_path, {"k1": KEY}), "503 Away") as (server, tokens):
        with pytest.raises(Unavailable, match="503"):
            await tokens.caller(token())
        assert (await tokens.caller(token())).tenant == "alice"
        monkeypatch.setattr(module, "LIFE_SECONDS", 0.0)
        server.answers = ["500 Broken", ""]
        for _ in range(2):
            assert (await tokens.caller(token())).tenant == "alice"
        assert len(server.received) == 4
    assert (await tokens.caller(token())).tenant == "alice"  # nobody listens there any more
    with pytest.raises(Unauthenticated, match="'k2'"):
        await tokens.caller(token(OTHER_KEY, "k2"))


@pytest.mark.parametrize("status", ["200 OK\r\nTransfer-Encoding: chunked", "OK"], ids=["no chunks", "no HTTP"])
async def test_an_answer_that_is_no_http_counts_as_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: str
) -> None:
    monkeypatch.setattr(module, "PAUSE_SECONDS", 0.0)
    async with issuing(tmp_path, monkeypatch, key_set(tmp_path, {"k1": KEY}), status) as (server, tokens):
        with pytest.raises(Unavailable, match="cannot be read from"):
            await tokens.caller(token())
        assert (await tokens.caller(token())).tenant == "alice"
        monkeypatch.setattr(module, "LIFE_SECONDS", 0.0)
        server.answers = [status]
        assert (await tokens.caller(token())).tenant == "alice"
        assert len(server.received) == 3


async def test_an_issuer_that_does_not_answer_holds_up_nobody_whose_key_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with issuing(tmp_path, monkeypatch, key_set(tmp_path, {"k1": KEY})) as (server, tokens):
        await tokens.caller(token())
        monkeypatch.setattr(module, "PAUSE_SECONDS", 0.0)
        server.go.clear()
        server.body = key_set(tmp_path, {"k1": KEY, "k2": OTHER_KEY})
        first = asyncio.create_task(tokens.caller(token(OTHER_KEY, "k2")))
        await server.until(2)
        monkeypatch.setattr(module, "LIFE_SECONDS", 0.0)
        for _ in range(5):
            assert (await tokens.caller(token())).tenant == "alice"
        assert not first.done()
        assert len(server.received) == 2
        server.go.set()
        assert (await first).tenant == "alice"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"<html>", "Expecting value"),
        (b"[]", "no JSON Web Key Set"),
        (b"{}", "no JSON Web Key Set"),
        (b'{"keys": "k1"}', "no JSON Web Key Set"),
        (b"\x80abc", "decode"),
        (b'{"keys": []}', "has no keys at"),
        (b" " * ((1 << 20) + 1), "more than 1048576 bytes"),
    ],
    ids=["html", "list", "no keys", "keys of another kind", "not UTF-8", "none", "too large"],
)
async def test_an_answer_that_is_no_key_set_lets_nobody_in_and_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: bytes, said: str
) -> None:
    async with issuing(tmp_path, monkeypatch, body) as (_, tokens):
        with pytest.raises(Unavailable, match=said):
            await tokens.caller(token())


async def test_entries_that_are_not_understood_are_passed_by(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = json.loads(key_set(tmp_path, {"k1": KEY}))
    content["keys"] = [7, {"kty": "new"}, {"kty": "EC", "crv": "P-1", "kid": "k0"}, *content["keys"]]
    async with issuing(tmp_path, monkeypatch, json.dumps(content).encode()) as (_, tokens):
        assert (await tokens.caller(token())).tenant == "alice"


async def test_a_redirect_and_a_certificate_of_somebody_else_are_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved = "302 Found\r\nLocation: http://localhost:1/keys"
    monkeypatch.setattr(module, "PAUSE_SECONDS", 0.0)
    async with issuing(tmp_path, monkeypatch, key_set(tmp_path, {"k1": KEY}), moved) as (_, tokens):
        with pytest.raises(Unavailable, match="302"):
            await tokens.caller(token())
        monkeypatch.delenv("SSL_CERT_FILE")
        with pytest.raises(Unavailable, match="CERTIFICATE_VERIFY_FAILED"):
            await tokens.caller(token())
