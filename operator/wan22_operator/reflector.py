"""A collection as it is now, kept up by list and watch, and known to be late as soon as the watch is silent."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from http import HTTPStatus

from wan22_operator.cluster import ANSWER_SECONDS, ApiFailure, Cluster, Object
from wan22_operator.resources import Resource

log = logging.getLogger(__name__)
WATCH_SECONDS = 10.0
"""How long one watch lasts at the server; another one is cheap."""
PAUSE_SECONDS = 1.0
"""After a failure, before it is listed again."""


class Reflector:
    """Has in memory what is `kept` of every object with these labels, and tells `changed` what it was and is.

    A watch that breaks, is refused or has died silently is followed by a list, which closes the gap.
    """

    def __init__(
        self,
        cluster: Cluster,
        resource: Resource,
        namespace: str | None,
        labels: str,
        *,
        kept: Callable[[Object], Object],
        changed: Callable[[Object | None, Object | None], None],
    ) -> None:
        self._cluster = cluster
        self._resource = resource
        self._namespace = namespace
        self._labels = labels
        self._kept = kept
        self._changed = changed
        self._objects: dict[str, Object] = {}
        """By uid."""
        self._version = ""
        """Of the collection, up to which all is told."""
        self._follows = asyncio.Event()
        self._trouble = "they have not been listed yet."

    async def current(self) -> None:
        """Returns once they are followed, so that no change is told later than a watch may last. Raises ApiFailure."""
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                await self._follows.wait()
        except TimeoutError as error:
            text = f"What {self._resource.plural} there are is not known now: {self._trouble}"
            raise ApiFailure(0, "Unreachable", text) from error

    async def run(self) -> None:
        """Follows for ever."""
        while True:
            try:
                await self.step()
                self._trouble = ""
            except ApiFailure as failure:
                if failure.code == HTTPStatus.GONE:
                    log.info("The watch history of %s expired (410): listing.", self._resource.plural)
                elif failure.message != self._trouble:
                    log.warning("What %s there are is not known now: %s", self._resource.plural, failure.message)
                self._trouble = failure.message
                await asyncio.sleep(PAUSE_SECONDS)

    async def step(self) -> None:
        """Watches for a while; lists first, at the beginning and after a watch that failed. Raises ApiFailure."""
        if not self._follows.is_set():
            await self._list()
        try:
            await self._cluster.watch(
                self._resource,
                self._namespace,
                labels=self._labels,
                version=self._version,
                seconds=WATCH_SECONDS,
                told=self._take,
            )
        except ApiFailure:
            self._follows.clear()
            raise

    async def _list(self) -> None:
        there = set()
        async for page, version in self._cluster.pages(self._resource, self._namespace, labels=self._labels):
            self._version = version
            for found in page:
                there.add(found["metadata"]["uid"])
                self._see(found)
        for uid in self._objects.keys() - there:
            self._changed(self._objects.pop(uid), None)
        self._follows.set()

    def _take(self, event: Object) -> None:
        told = event["object"]
        if event["type"] == "ERROR":
            raise ApiFailure(told.get("code", 0), told.get("reason", ""), told.get("message", "The watch failed."))
        self._version = told["metadata"]["resourceVersion"]
        if event["type"] == "DELETED":
            if (known := self._objects.pop(told["metadata"]["uid"], None)) is not None:
                self._changed(known, None)
        elif event["type"] != "BOOKMARK":
            self._see(told)

    def _see(self, found: Object) -> None:
        uid, now = found["metadata"]["uid"], self._kept(found)
        before = self._objects.get(uid)
        self._objects[uid] = now
        self._changed(before, now)
