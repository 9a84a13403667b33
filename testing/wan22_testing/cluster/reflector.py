"""A collection of a cluster as it is now, kept up by list and watch."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from http import HTTPStatus

from wan22_testing.cluster.api import Api, ApiError, Object

log = logging.getLogger(__name__)
PAUSE_SECONDS = 0.2
"""After a failure, before it is listed again."""


class Reflector:
    """Tells of every object that there is, changes and is gone; a gap in the watch is closed by a new list."""

    def __init__(
        self,
        api: Api,
        path: str,
        *,
        seen: Callable[[Object], None],
        gone: Callable[[Object], None] = lambda _: None,
        field_selector: str = "",
    ) -> None:
        self.objects: dict[str, Object] = {}  # by uid
        self.listed = asyncio.Event()
        self._api = api
        self._path = path
        self._seen = seen
        self._gone = gone
        self._parameters = {"fieldSelector": field_selector} if field_selector else {}

    async def run(self) -> None:
        """Follows for ever, over restarts of the server."""
        while True:
            try:
                version = await self._list()
                while True:
                    version = await self._watch(version)
            except ApiError as error:
                if error.code != HTTPStatus.GONE:
                    log.info("%s is listed again: %s", self._path, error)
                    await asyncio.sleep(PAUSE_SECONDS)

    async def _list(self) -> str:
        found = await self._api.get(self._path, **self._parameters)
        items = {item["metadata"]["uid"]: item for item in found["items"]}
        for uid in self.objects.keys() - items.keys():
            self._gone(self.objects.pop(uid))
        for uid, item in items.items():
            self.objects[uid] = item
            self._seen(item)
        self.listed.set()
        version: str = found["metadata"]["resourceVersion"]
        return version

    async def _watch(self, version: str) -> str:
        async for event in self._api.watch(self._path, version, **self._parameters):
            item = event["object"]
            if event["type"] == "ERROR":
                raise ApiError(item.get("code", 0), item.get("message", ""))
            version = item["metadata"]["resourceVersion"]
            if event["type"] == "BOOKMARK":
                continue
            uid = item["metadata"]["uid"]
            if event["type"] == "DELETED":
                self.objects.pop(uid, None)
                self._gone(item)
            else:
                self.objects[uid] = item
                self._seen(item)
        return version
