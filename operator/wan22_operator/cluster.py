"""The Kubernetes API, asked in JSON: what the operator needs of it and nothing else."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from http import HTTPStatus
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

import aiohttp
from kubernetes.aio import config
from kubernetes.aio.client import ApiClient, Configuration
from kubernetes.aio.client.rest import RESTResponse
from kubernetes.aio.config import ConfigException

from wan22.errors import FailedPrecondition, Reason
from wan22_operator.resources import Resource

Object = dict[str, Any]
FIELD_MANAGER = "wan22-operator"
ANSWER_SECONDS = 20.0
"""How long one answer may take: a half-open connection is noticed after that."""
OVERDUE_SECONDS = 10.0
"""How much longer than it was asked for a watch may last, on a machine that is busy."""
APPLY = "application/apply-patch+yaml"
JSON = "application/json"
NAMES = f"{JSON};as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
"""Asks for what a list's objects are called, without the rest of them."""
MOST_CALLS = 50
"""At once, without watches. Others wait their turn, before their time for an answer begins."""
LISTED_AT_ONCE = 200
"""Objects: thousands in one answer would be the most memory that the operator ever takes."""


class ApiFailure(Exception):
    """The API server refused, or was not reached (code 0); `reason` is Kubernetes' own word for it."""

    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message

    @property
    def missing(self) -> bool:
        """What was asked for is not there."""
        return self.code == HTTPStatus.NOT_FOUND

    @property
    def conflict(self) -> bool:
        """Somebody was faster, or holds a field; creating, the name is taken."""
        return self.code == HTTPStatus.CONFLICT


async def load_configuration(kubeconfig: Path | None) -> Configuration:
    """Where the API server is and who is asking. Raises FailedPrecondition (BAD_SETTING)."""
    loaded = Configuration()
    loaded.connection_pool_maxsize = 0  # as many as there are calls and watches
    # else two threads look for a proxy and a password in the environment, for each call
    loaded.client_session_kwargs = {"trust_env": False}
    try:
        if kubeconfig is None and not os.environ.get("KUBECONFIG"):
            config.load_incluster_config(loaded)  # type: ignore[no-untyped-call]
        else:
            file = None if kubeconfig is None else str(kubeconfig)
            await config.load_kube_config(file, client_configuration=loaded)  # type: ignore[no-untyped-call]
    except (ConfigException, OSError) as error:
        text = f"There is no way to the Kubernetes API ({error}): give --kubeconfig, or run in a cluster."
        raise FailedPrecondition(text, reason=Reason.BAD_SETTING) from error
    return loaded


class Cluster:
    """One API server as one user; use as an async context manager. Every call raises ApiFailure.

    `observe` hears of each call its method and the code of its answer, 0 where there was none.
    """

    def __init__(self, configuration: Configuration, observe: Callable[[str, int], None] = lambda *_: None) -> None:
        self.configuration = configuration
        self._observe = observe
        self._slots = asyncio.Semaphore(MOST_CALLS)

    async def __aenter__(self) -> Self:
        self._client = ApiClient(self.configuration)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.close()  # type: ignore[no-untyped-call]

    async def get(self, resource: Resource, namespace: str | None, name: str) -> Object:
        """One object."""
        return await self._call("GET", resource.path(namespace, name))

    async def find(self, resource: Resource, namespace: str | None, name: str) -> Object | None:
        """One object, or None."""
        try:
            return await self.get(resource, namespace, name)
        except ApiFailure as failure:
            if failure.missing:
                return None
            raise

    async def names(self, resource: Resource, namespace: str | None = None) -> list[Object]:
        """The metadata of all objects of a namespace or of all."""
        answer = await self._call("GET", resource.path(namespace), accept=NAMES)
        found: list[Object] = answer["items"] or []
        return found

    async def list(
        self, resource: Resource, namespace: str | None = None, *, labels: str = "", cached: bool = False
    ) -> list[Object]:
        """The objects with these labels, of a namespace or of all.

        Those that are `cached` are what the API server has in memory, which may be moments old; else it reads every
        object of the namespace from its store, whatever the labels.
        """
        query = {"labelSelector": labels} if labels else {}
        if cached:
            query["resourceVersion"] = "0"
        answer = await self._call("GET", resource.path(namespace), query=query)
        found: list[Object] = answer["items"]
        return found

    async def pages(
        self, resource: Resource, namespace: str | None, *, labels: str
    ) -> AsyncIterator[tuple[Sequence[Object], str]]:
        """All objects with these labels, read exactly and some at a time, with the version that they are all of."""
        query = {"labelSelector": labels, "limit": str(LISTED_AT_ONCE)}
        while True:
            answer = await self._call("GET", resource.path(namespace), query=query)
            yield answer["items"], answer["metadata"]["resourceVersion"]
            if not (rest := answer["metadata"].get("continue")):
                return
            query["continue"] = rest

    async def watch(
        self,
        resource: Resource,
        namespace: str | None,
        *,
        labels: str,
        version: str,
        seconds: float,
        told: Callable[[Object], None],
    ) -> None:
        """Tells each event since a version, until the server ends it, after so many seconds.

        A watch that goes on for much longer is half-open, and fails.
        """
        query = {
            "watch": "true",
            "labelSelector": labels,
            "resourceVersion": version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": f"{seconds:.0f}",
        }
        path = resource.path(namespace)
        try:
            async with asyncio.timeout(seconds + OVERDUE_SECONDS):
                response = (await self._open("GET", path, query=query)).response
                async with response:
                    if response.status >= HTTPStatus.BAD_REQUEST:
                        raise _failure(response.status, await response.read())
                    async for line in response.content:
                        told(json.loads(line))
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            text = f"GET {path}: the watch broke ({type(error).__name__}: {error})."
            raise ApiFailure(0, "Unreachable", text) from error

    async def create(self, resource: Resource, namespace: str | None, manifest: Mapping[str, Any]) -> Object:
        """A new object; a name that is taken is a conflict."""
        query = {"fieldManager": FIELD_MANAGER}
        return await self._call("POST", resource.path(namespace), query=query, body=manifest)

    async def replace(self, resource: Resource, namespace: str | None, manifest: Mapping[str, Any]) -> Object:
        """An object as the manifest says, if it is still of the manifest's resourceVersion."""
        path = resource.path(namespace, manifest["metadata"]["name"])
        return await self._call("PUT", path, query={"fieldManager": FIELD_MANAGER}, body=manifest)

    async def apply(
        self,
        resource: Resource,
        namespace: str | None,
        manifest: Mapping[str, Any],
        *,
        subresource: str = "",
        force: bool = False,
    ) -> Object:
        """Server-side apply of the fields given; a conflict where another manager holds one, unless forced.

        With a resourceVersion in the manifest also a conflict where the object has changed since.
        """
        query = {"fieldManager": FIELD_MANAGER, "force": "true" if force else "false"}
        path = resource.path(namespace, manifest["metadata"]["name"], subresource)
        return await self._call("PATCH", path, query=query, body=manifest, content_type=APPLY)

    async def delete(self, resource: Resource, namespace: str | None, name: str, *, uid: str, version: str) -> None:
        """Deletes the object of this uid in this resourceVersion, else it is a conflict."""
        body = {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": uid, "resourceVersion": version}}
        await self._call("DELETE", resource.path(namespace, name), body=body)

    async def _call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        content_type: str = JSON,
        accept: str = JSON,
    ) -> Object:
        try:
            async with self._slots, asyncio.timeout(ANSWER_SECONDS):
                headers = {"Accept": accept, "Content-Type": content_type}
                response = await self._open(method, path, query=query, body=body, headers=headers)
                content = await response.read()  # type: ignore[no-untyped-call]
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            self._observe(method, 0)
            text = f"{method} {path}: the Kubernetes API does not answer ({type(error).__name__}: {error})."
            raise ApiFailure(0, "Unreachable", text) from error
        self._observe(method, response.status)
        if response.status >= HTTPStatus.BAD_REQUEST:
            raise _failure(response.status, content)
        answer: Object = json.loads(content)
        return answer

    async def _open(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None,
        body: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] = MappingProxyType({"Accept": JSON}),
    ) -> RESTResponse:
        """The answer's head; what follows is not read yet."""
        prepared = await self._client.param_serialize(
            method,
            path,
            query_params=list((query or {}).items()),
            header_params=dict(headers),
            auth_settings=["BearerToken"],
        )
        method, url, given, _, _ = prepared
        return await self._client.call_api(method, url, given, body)


def _failure(code: int, content: bytes) -> ApiFailure:
    text = content.decode(errors="replace")
    try:
        said = json.loads(text)
        return ApiFailure(code, said.get("reason", ""), said["message"])
    except (ValueError, KeyError, TypeError, AttributeError):
        return ApiFailure(code, "", text or HTTPStatus(code).phrase)
