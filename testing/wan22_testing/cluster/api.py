"""A Kubernetes API server, asked in JSON from asyncio."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from http import HTTPStatus
from pathlib import Path
from typing import Any, Self

import httpx

from wan22.http_client import HttpClient

Object = dict[str, Any]
ANSWER_SECONDS = 20.0
MOST_CALLS = 50
"""At once: each call goes through all that are under way, so that a thousand would take a second each."""
WATCH_SECONDS = 60
"""How long one watch lasts at the server; it may be silent for as long."""
MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
"""Merges the lists of built-in kinds by their keys, such as conditions by type."""


class ApiError(Exception):
    """The server refused, with its code; the text is what it said. 0: it could not be reached."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class Api:
    """One API server as one user, as a kubeconfig of `write_kubeconfig` says; use as an async context manager."""

    def __init__(self, kubeconfig: Path) -> None:
        config = json.loads(kubeconfig.read_text())
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        tls = ssl.create_default_context(cafile=cluster["certificate-authority"])
        headers = {}
        if token := user.get("token"):
            headers["Authorization"] = f"Bearer {token}"
        else:
            tls.load_cert_chain(user["client-certificate"], user["client-key"])
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=50)
        self._slots = asyncio.Semaphore(MOST_CALLS)
        self._client = HttpClient(
            base_url=cluster["server"], headers=headers, verify=tls, timeout=ANSWER_SECONDS, limits=limits
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()

    async def get(self, path: str, **parameters: str) -> Object:
        """The object, or the list of them. Raises ApiError, as all do."""
        return await self._call("GET", path, parameters=parameters)

    async def create(self, path: str, manifest: Mapping[str, Any]) -> Object:
        """Creates an object in a collection."""
        return await self._call("POST", path, content=manifest)

    async def patch(self, path: str, change: Mapping[str, Any], kind: str = MERGE) -> Object:
        """Changes an object, or a subresource of it."""
        return await self._call("PATCH", path, content=change, content_type=kind)

    async def delete(self, path: str, options: Mapping[str, Any] | None = None) -> Object:
        """Deletes an object, with DeleteOptions."""
        return await self._call("DELETE", path, content=options or {})

    async def watch(self, path: str, resource_version: str, **parameters: str) -> AsyncIterator[Object]:
        """What changes after a version of the collection: events, until the server ends it."""
        asked = {
            "watch": "true",
            "resourceVersion": resource_version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(WATCH_SECONDS),
            **parameters,
        }
        timeout = httpx.Timeout(ANSWER_SECONDS, read=WATCH_SECONDS + ANSWER_SECONDS)
        try:
            request = self._client.build_request("GET", path, params=asked, timeout=timeout)
            async with aclosing(await self._client.send(request, stream=True)) as answer:
                if answer.status_code != HTTPStatus.OK:
                    raise _error(answer.status_code, await answer.aread())
                async for line in answer.aiter_lines():
                    yield json.loads(line)
        except httpx.HTTPError as error:
            raise ApiError(0, f"{type(error).__name__}: {error}") from error

    async def _call(
        self,
        method: str,
        path: str,
        *,
        parameters: Mapping[str, str] | None = None,
        content: Mapping[str, Any] | None = None,
        content_type: str = "application/json",
    ) -> Object:
        try:
            async with self._slots:
                request = self._client.build_request(
                    method,
                    path,
                    params=parameters,
                    content=None if content is None else json.dumps(content),
                    headers={} if content is None else {"Content-Type": content_type},
                )
                answer = await self._client.send(request)
        except httpx.HTTPError as error:
            raise ApiError(0, f"{type(error).__name__}: {error}") from error
        if not answer.is_success:
            raise _error(answer.status_code, answer.content)
        made: Object = answer.json()
        return made


def _error(code: int, content: bytes) -> ApiError:
    text = content.decode(errors="replace")
    try:
        return ApiError(code, json.loads(text)["message"])
    except (ValueError, KeyError, TypeError):
        return ApiError(code, text or HTTPStatus(code).phrase)
