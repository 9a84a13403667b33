"""Who we are to a registry, as `docker login`, `podman login` and `skopeo login` have stored it."""

from __future__ import annotations

import base64
import binascii
import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wan22.errors import FailedPrecondition, Reason

HELPER_SECONDS = 30.0
IDENTITY_TOKEN_USER = "<token>"  # noqa: S105  # what a credential helper says in place of a user's name
NOTHING_STORED = "credentials not found"
"""What a credential helper prints for a host that it does not know, with exit code 1."""


@dataclass(frozen=True)
class Credentials:
    """A name and its password, or a token that stands for both."""

    username: str
    password: str
    identity_token: str | None = None

    @property
    def basic(self) -> str:
        """The value of an Authorization header (RFC 7617)."""
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode()


def stored_credentials(host: str, environment: Mapping[str, str] = os.environ) -> Credentials | None:
    """What the first login file that knows the host says of it; None where none does.

    Looks into REGISTRY_AUTH_FILE, containers/auth.json below XDG_RUNTIME_DIR, and config.json of DOCKER_CONFIG, by
    default ~/.docker. Raises FailedPrecondition naming a file, or a credential helper, that cannot be used.
    """
    for path in _files(environment):
        if not path.exists():
            continue
        try:
            found = _of_host(json.loads(path.read_bytes()), host)
        except (AttributeError, binascii.Error, KeyError, OSError, TypeError, ValueError) as error:
            text = f"{path} is no login file as docker writes it ({error}): log in again, or set DOCKER_CONFIG."
            raise FailedPrecondition(text, reason=Reason.BAD_SETTING) from error
        if found:
            return found
    return None


def _files(environment: Mapping[str, str]) -> Iterator[Path]:
    if named := environment.get("REGISTRY_AUTH_FILE"):
        yield Path(named)
    if runtime := environment.get("XDG_RUNTIME_DIR"):
        yield Path(runtime) / "containers" / "auth.json"
    docker = environment.get("DOCKER_CONFIG") or Path(environment.get("HOME") or "~").expanduser() / ".docker"
    yield Path(docker) / "config.json"


def _of_host(config: dict[str, Any], host: str) -> Credentials | None:
    helper = config.get("credHelpers", {}).get(host) or config.get("credsStore")
    if helper and (found := _from_helper(helper, host)):
        return found
    for name, entry in config.get("auths", {}).items():
        if name.removeprefix("https://").removeprefix("http://").partition("/")[0] != host:
            continue
        username, _, password = base64.b64decode(entry.get("auth") or "", validate=True).decode().partition(":")
        token = entry.get("identitytoken") or None
        if username or token:
            return Credentials(username, password.rstrip("\0"), token)
    return None


def _from_helper(name: str, host: str) -> Credentials | None:
    """Asks docker-credential-NAME, by the protocol of docker's credential helpers."""
    program = f"docker-credential-{name}"
    if "/" in name:
        raise ValueError(f"{name!r} is no name of a credential helper")
    try:
        answer = subprocess.run(
            [program, "get"], input=host, capture_output=True, text=True, timeout=HELPER_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        text = f"The credential helper {program}, which docker's configuration names, does not answer: {error}."
        raise FailedPrecondition(text, reason=Reason.BAD_SETTING) from error
    if answer.returncode:
        if NOTHING_STORED in answer.stdout + answer.stderr:
            return None
        said = (answer.stdout + answer.stderr).strip()[:300]
        raise FailedPrecondition(f"The credential helper {program} fails: {said}.", reason=Reason.BAD_SETTING)
    found = json.loads(answer.stdout)
    if found["Username"] == IDENTITY_TOKEN_USER:
        return Credentials("", "", found["Secret"])
    return Credentials(found["Username"], found["Secret"])
