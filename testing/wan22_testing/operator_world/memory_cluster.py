"""The API server as the operator uses it, in memory: names, uids, resourceVersions and preconditions."""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from typing import Any

from kubernetes.aio.client import Configuration

from wan22_operator.cluster import ApiFailure, Cluster, Object
from wan22_operator.resources import EVENT, POD, Resource
from wan22_operator.times import text_of
from wan22_testing.operator_world.faults import Faults

Key = tuple[str, str | None, str]
HISTORY = 300
"""Events of pods that a watch may begin with: a later one is answered by 410."""


class MemoryCluster(Cluster):
    """Refuses what a real one does where the operator relies on it; each call may go wrong by `faults`."""

    def __init__(self, clock: Callable[[], float], deleted: Callable[[Object], None]) -> None:
        super().__init__(Configuration())
        self.faults: Faults
        self._clock = clock
        self._deleted = deleted
        """Hears of each pod that is told to end."""
        self._objects: dict[Key, Object] = {}
        self._events: deque[tuple[int, Object]] = deque(maxlen=HISTORY)
        """What watches tell of pods, by version."""
        self.silent_until = 0.0
        """Until then watches tell nothing, and nobody says so."""
        self._version = 0
        self.created: set[str] = set()
        """Names of all pods there ever were."""
        self.twice: set[str] = set()
        """Names that two pods had."""

    async def get(self, resource: Resource, namespace: str | None, name: str) -> Object:
        """A copy of it."""
        return await self.faults.call(lambda: copy.deepcopy(self._has(resource, namespace, name)))

    async def list(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        labels: str = "",
        cached: bool = False,  # noqa: ARG002  # it is never late
    ) -> list[Object]:
        """Copies of those of the namespace, or of all, that have all these labels."""
        wanted = dict(label.split("=") for label in labels.split(",")) if labels else {}

        def found() -> list[Object]:
            return [
                copy.deepcopy(one)
                for one in self.all(resource)
                if namespace in {None, one["metadata"].get("namespace")}
                and wanted.items() <= one["metadata"].get("labels", {}).items()
            ]

        return await self.faults.call(found)

    async def pages(
        self,
        resource: Resource,
        namespace: str | None,  # noqa: ARG002  # as of all: there is one
        *,
        labels: str,  # noqa: ARG002  # there are no other pods than workers'
    ) -> AsyncIterator[tuple[Sequence[Object], str]]:
        """All of a kind, on one page."""
        yield await self.faults.call(lambda: (copy.deepcopy([*self.all(resource)]), str(self._version)))

    async def watch(
        self,
        resource: Resource,  # noqa: ARG002  # of pods alone
        namespace: str | None,  # noqa: ARG002  # as of all: there is one
        *,
        labels: str,  # noqa: ARG002  # there are no other pods than workers'
        version: str,
        seconds: float,  # noqa: ARG002  # of simulated time none passes in it
        told: Callable[[Object], None],
    ) -> None:
        """Tells at once what has happened to pods since a version, and ends; it may be late with some, or all."""

        def events() -> list[Object]:
            if self._events and int(version) < self._events[0][0] - 1 and len(self._events) == HISTORY:
                raise ApiFailure(410, "Expired", "The version is too old.")
            found = [copy.deepcopy(event) for at, event in self._events if at > int(version)]
            if self._clock() < self.silent_until:
                return []
            return found[: self.faults.told_of(len(found))]

        for event in await self.faults.call(events):
            told(event)

    async def create(self, resource: Resource, namespace: str | None, manifest: Mapping[str, Any]) -> Object:  # noqa: ARG002  # the manifest says it
        """Under a name that is free."""
        return await self.faults.call(lambda: self.put_new(resource, manifest))

    async def replace(self, resource: Resource, namespace: str | None, manifest: Mapping[str, Any]) -> Object:
        """All but its metadata."""

        def done() -> Object:
            has = self._has(resource, namespace, manifest["metadata"]["name"])
            self.precondition(has, manifest["metadata"])
            return self.changed({**has, **copy.deepcopy({k: v for k, v in manifest.items() if k != "metadata"})})

        return await self.faults.call(done, rests_on_read=True)

    async def apply(
        self,
        resource: Resource,
        namespace: str | None,
        manifest: Mapping[str, Any],
        *,
        subresource: str = "",
        force: bool = False,  # noqa: ARG002  # there is nobody to take a field from
    ) -> Object:
        """Of one field manager only: what it applies is all that there is of these fields."""

        def done() -> Object:
            name = manifest["metadata"]["name"]
            if (resource.kind, namespace, name) not in self._objects and not subresource:
                return self.put_new(resource, manifest)
            has = self._has(resource, namespace, name)
            self.precondition(has, manifest["metadata"])
            fields = {k: v for k, v in manifest.items() if k not in {"metadata", "apiVersion", "kind"}}
            return self.changed({**has, **copy.deepcopy(fields)})

        return await self.faults.call(done, rests_on_read=bool(subresource))

    async def delete(self, resource: Resource, namespace: str | None, name: str, *, uid: str, version: str) -> None:
        """A pod is told to end, and goes when the world says so."""

        def done() -> None:
            has = self._has(resource, namespace, name)
            self.precondition(has, {"uid": uid, "resourceVersion": version})
            if "deletionTimestamp" not in has["metadata"]:
                self._deleted(has)
                has["metadata"]["deletionTimestamp"] = text_of(self._clock())
                self.changed(has)

        await self.faults.call(done, rests_on_read=True)

    def all(self, resource: Resource) -> Iterator[Object]:
        """The objects of a kind as they are, for the world to change and to say so by `changed`."""
        return (one for (kind, _, _), one in list(self._objects.items()) if kind == resource.kind)

    def put_new(self, resource: Resource, manifest: Mapping[str, Any]) -> Object:
        """Creates. Raises ApiFailure where the name is taken."""
        meta = manifest["metadata"]
        key = (resource.kind, meta.get("namespace"), meta["name"])
        if key in self._objects:
            raise ApiFailure(409, "AlreadyExists", f"{resource.kind} {meta['name']} exists.")
        made = copy.deepcopy(dict(manifest))
        made["kind"] = resource.kind
        made["metadata"] |= {"uid": f"uid-{self._version}", "creationTimestamp": text_of(self._clock())}
        if resource is POD:
            self.twice |= self.created & {meta["name"]}
            self.created.add(meta["name"])
        if resource is not EVENT:
            self._objects[key] = made
        return self.changed(made)

    def changed(self, one: Object) -> Object:
        """Keeps an object as it is now, under a new resourceVersion; returns a copy."""
        meta = one["metadata"]
        self._version += 1
        meta["resourceVersion"] = str(self._version)
        if (key := (one["kind"], meta.get("namespace"), meta["name"])) in self._objects:
            self._objects[key] = one
            self._tell("MODIFIED", one)
        return copy.deepcopy(one)

    def drop(self, one: Object) -> None:
        """It is gone."""
        meta = one["metadata"]
        del self._objects[one["kind"], meta.get("namespace"), meta["name"]]
        self._version += 1
        meta["resourceVersion"] = str(self._version)
        self._tell("DELETED", one)

    def _tell(self, kind: str, one: Object) -> None:
        if one["kind"] == POD.kind:
            self._events.append((self._version, {"type": kind, "object": copy.deepcopy(one)}))

    def _has(self, resource: Resource, namespace: str | None, name: str) -> Object:
        found = self._objects.get((resource.kind, namespace, name))
        if found is None:
            raise ApiFailure(404, "NotFound", f"{resource.kind} {name} is not there.")
        return found

    @staticmethod
    def precondition(has: Object, meta: Mapping[str, Any]) -> None:
        """Raises ApiFailure where the object is another than the writer has seen."""
        for field in ("uid", "resourceVersion"):
            if field in meta and meta[field] != has["metadata"][field]:
                raise ApiFailure(409, "Conflict", f"{has['metadata']['name']} is of another {field}.")
