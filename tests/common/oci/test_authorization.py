"""A registry with a token server, as the public ones have it; what Debian's can do without one is in test_transfer."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from wan22.errors import FailedPrecondition, PermissionDenied, Unavailable
from wan22.oci.reference import OciReference
from wan22.oci.registry import OciRegistry

BLOB = b"0123456789"


class Guarded(ThreadingHTTPServer):
    """Gives BLOB, by way of a redirect to another host, to those with a token, and tokens to anna."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.port: int = self.server_address[1]
        self.realm = f"http://127.0.0.1:{self.port}/token"
        self.asked: list[dict[str, list[str]]] = []
        """The parameters of each call of the token server."""
        self.seen: list[tuple[str, str | None]] = []
        """Host and Authorization of each read of the blob's bytes."""
        self.token = "first"
        self.token_code = 200


class Handler(BaseHTTPRequestHandler):
    server: Guarded

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        if url.path == "/token":
            self._give_token(parse_qs(url.query), self.headers.get("Authorization") == "Basic YW5uYTpzZWNyZXQ=")
        elif url.path == "/storage":
            self.server.seen.append((self.headers["Host"], self.headers.get("Authorization")))
            self._answer(200, BLOB)
        elif self.headers.get("Authorization") != f"Bearer {self.server.token}":
            challenge = f'Bearer realm="{self.server.realm}",service="r",scope="repository:m:pull"'
            self._answer(401, b"", {"WWW-Authenticate": challenge})
        else:
            self._answer(307, b"", {"Location": f"http://localhost:{self.server.port}/storage"})

    def do_POST(self) -> None:
        form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        self._give_token(form, form.get("refresh_token") == ["identity"])

    def _give_token(self, asked: dict[str, list[str]], known: bool) -> None:
        self.server.asked.append(asked)
        code = self.server.token_code if known else 401
        self._answer(code, json.dumps({"access_token": self.server.token}).encode() if code == 200 else b"")

    def _answer(self, code: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(code)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the base class names it so
        pass


@pytest.fixture
def server() -> Iterator[Guarded]:
    with Guarded() as guarded:
        thread = threading.Thread(target=guarded.serve_forever)
        thread.start()
        yield guarded
        guarded.shutdown()
        thread.join()


@pytest.fixture
def log_in(tmp_path: Path, server: Guarded, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))

    def write(**entry: str) -> None:
        auths = {f"127.0.0.1:{server.port}": entry}
        (tmp_path / "config.json").write_text(json.dumps({"auths": auths}))

    return write


def auth(name: str) -> str:
    return base64.b64encode(name.encode()).decode()


async def read(server: Guarded) -> bytes:
    reference = OciReference.parse(f"oci://127.0.0.1:{server.port}/m")
    async with OciRegistry(reference, patience=0.2) as registry:
        return b"".join([data async for data in registry.read_blob("sha256:" + "a" * 64)])


async def test_a_token_is_fetched_with_the_stored_name_and_goes_to_the_registry_alone(
    server: Guarded, log_in: Any
) -> None:
    log_in(auth=auth("anna:secret"))
    assert await read(server) == BLOB
    assert server.asked == [{"service": ["r"], "scope": ["repository:m:pull"]}]
    assert server.seen == [(f"localhost:{server.port}", None)]


async def test_an_identity_token_is_exchanged(server: Guarded, log_in: Any) -> None:
    log_in(identitytoken="identity")
    assert await read(server) == BLOB
    (asked,) = server.asked
    assert (asked["grant_type"], asked["scope"]) == (["refresh_token"], ["repository:m:pull"])


async def test_a_token_that_has_expired_is_fetched_anew(server: Guarded, log_in: Any) -> None:
    log_in(auth=auth("anna:secret"))
    async with OciRegistry(OciReference.parse(f"oci://127.0.0.1:{server.port}/m")) as registry:
        for token in ("first", "second"):
            server.token = token
            assert b"".join([data async for data in registry.read_blob("sha256:" + "a" * 64)]) == BLOB
    assert len(server.asked) == 2


async def test_nobody_and_a_wrong_password_are_told_to_log_in(server: Guarded, log_in: Any) -> None:
    with pytest.raises(PermissionDenied, match="wants to know who asks: log in by `docker login"):
        await read(server)
    log_in(auth=auth("anna:wrong"))
    with pytest.raises(PermissionDenied, match="refuses the stored credentials"):
        await read(server)


async def test_a_token_server_that_fails_is_named(server: Guarded, log_in: Any) -> None:
    log_in(auth=auth("anna:secret"))
    server.token_code = 503
    with pytest.raises(Unavailable, match="did not answer"):
        await read(server)
    server.token_code = 204
    with pytest.raises(FailedPrecondition, match="answers 204 without a token"):
        await read(server)
    server.realm = "ftp://tokens"
    with pytest.raises(FailedPrecondition, match="'ftp://tokens', which is not https"):
        await read(server)
