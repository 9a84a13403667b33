from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from wan22.errors import FailedPrecondition
from wan22.oci.credentials import Credentials, stored_credentials

ANNA = base64.b64encode(b"anna:se:cret").decode()


def write(path: Path, config: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(config if isinstance(config, str) else json.dumps(config))
    return path


def helper(folder: Path, script: str) -> str:
    """PATH with docker-credential-test in front."""
    program = write(folder / "docker-credential-test", f"#!/bin/sh\nread host\n{script}\n")
    program.chmod(0o755)
    return f"{folder}:/usr/bin:/bin"


def test_a_name_and_password_are_found_by_host(tmp_path: Path) -> None:
    auths = {"other": {"auth": "eA=="}, "https://r.example:5000/v2/": {"auth": ANNA}, "empty": {}}
    write(tmp_path / ".docker" / "config.json", {"auths": auths})
    home = {"HOME": str(tmp_path)}
    assert stored_credentials("r.example:5000", home) == Credentials("anna", "se:cret")
    assert stored_credentials("r.example", home) is None
    assert stored_credentials("empty", home) is None
    assert stored_credentials("r.example:5000", {"HOME": str(tmp_path / "nobody")}) is None
    assert Credentials("anna", "se:cret").basic == f"Basic {ANNA}"


def test_files_are_looked_into_in_the_order_of_podman_and_docker(tmp_path: Path) -> None:
    def config(name: str) -> dict[str, Any]:
        return {"auths": {"r": {"auth": base64.b64encode(f"{name}:x".encode()).decode()}}}

    environment = {
        "REGISTRY_AUTH_FILE": str(write(tmp_path / "named.json", config("named"))),
        "XDG_RUNTIME_DIR": str(write(tmp_path / "run" / "containers" / "auth.json", config("run")).parent.parent),
        "DOCKER_CONFIG": str(write(tmp_path / "docker" / "config.json", config("docker")).parent),
        "HOME": str(tmp_path),
    }
    found = []
    while credentials := stored_credentials("r", environment):
        found.append(credentials.username)
        environment.pop(next(iter(environment)))
    assert found == ["named", "run", "docker"]


def test_an_identity_token_is_found(tmp_path: Path) -> None:
    write(tmp_path / "config.json", {"auths": {"r": {"identitytoken": "abc"}}})
    assert stored_credentials("r", {"DOCKER_CONFIG": str(tmp_path)}) == Credentials("", "", "abc")


def test_a_credential_helper_is_asked_by_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", helper(tmp_path, 'echo "{\\"Username\\": \\"u-$host\\", \\"Secret\\": \\"s\\"}"'))
    write(tmp_path / "config.json", {"credHelpers": {"r": "test"}, "auths": {"q": {"auth": ANNA}}})
    environment = {"DOCKER_CONFIG": str(tmp_path)}
    assert stored_credentials("r", environment) == Credentials("u-r", "s")
    assert stored_credentials("q", environment) == Credentials("anna", "se:cret")
    write(tmp_path / "config.json", {"credsStore": "test"})
    assert stored_credentials("q", environment) == Credentials("u-q", "s")
    monkeypatch.setenv("PATH", helper(tmp_path, 'echo "{\\"Username\\": \\"<token>\\", \\"Secret\\": \\"t\\"}"'))
    assert stored_credentials("q", environment) == Credentials("", "", "t")
    monkeypatch.setenv("PATH", helper(tmp_path, "echo credentials not found in native keychain; exit 1"))
    assert stored_credentials("q", environment) is None
    monkeypatch.setenv("PATH", helper(tmp_path, "echo locked >&2; exit 1"))
    with pytest.raises(FailedPrecondition, match="docker-credential-test fails: locked"):
        stored_credentials("q", environment)
    (tmp_path / "docker-credential-test").unlink()
    with pytest.raises(FailedPrecondition, match="docker-credential-test, which docker's configuration names"):
        stored_credentials("q", environment)


@pytest.mark.parametrize(
    "content",
    ["{", "[]", '{"auths": []}', '{"auths": {"r": {"auth": "!"}}}', '{"credsStore": "../x"}', '{"auths": {"r": 1}}'],
)
def test_a_file_that_is_no_login_file_is_named(tmp_path: Path, content: str) -> None:
    path = write(tmp_path / "config.json", content)
    with pytest.raises(FailedPrecondition, match=str(path)):
        stored_credentials("r", {"DOCKER_CONFIG": str(tmp_path)})
