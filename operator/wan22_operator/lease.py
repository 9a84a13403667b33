"""The operator's own Lease: one works at a time. Safety does not rest on it but on preconditions; it saves work."""

from __future__ import annotations

import asyncio
import logging
import time

from wan22_operator.cluster import ApiFailure, Cluster, Object
from wan22_operator.resources import LEASE
from wan22_operator.settings import OperatorSettings
from wan22_operator.times import micro_text_of

log = logging.getLogger(__name__)
TRIES = 5
"""Of a renewal in the time that the Lease holds."""


class Lease:
    """Held by one operator; `run` takes it, keeps it and says when it is lost.

    Whether another's Lease has lapsed is told by our own clock: from when its record was last seen to change.
    """

    def __init__(self, cluster: Cluster, settings: OperatorSettings) -> None:
        self._cluster = cluster
        self._namespace = settings.namespace
        self._name = settings.lease_name
        self._identity = settings.identity
        self._seconds = settings.lease_seconds
        self._seen: tuple[str, float] = ("", 0.0)
        self._renewed = 0.0

    async def acquire(self) -> None:
        """Returns once it is ours."""
        said = ""
        while True:
            try:
                holder = await self._try()
            except ApiFailure as failure:
                holder = f"nobody knows who: {failure.message}"
            if holder is None:
                log.info("Lease %s/%s is held by %s, which is this one.", self._namespace, self._name, self._identity)
                return
            if holder != said:
                log.info("Waiting for Lease %s/%s, held by %s.", self._namespace, self._name, holder)
                said = holder
            await asyncio.sleep(self._seconds / TRIES)

    async def keep(self) -> None:
        """Renews it; returns when another one has it, or it could not be renewed in time."""
        while True:
            await asyncio.sleep(self._seconds / TRIES)
            try:
                holder = await self._try()
            except ApiFailure as failure:
                if time.monotonic() - self._renewed > self._seconds:
                    log.warning("The Lease could not be renewed for %d s: %s", self._seconds, failure.message)
                    return
                continue
            if holder is not None:
                log.warning("The Lease is held by %s now.", holder)
                return

    async def release(self) -> None:
        """Lets the next one have it at once."""
        try:
            lease = await self._cluster.find(LEASE, self._namespace, self._name)
            if lease is not None and lease["spec"].get("holderIdentity") == self._identity:
                lease["spec"]["holderIdentity"] = ""
                await self._cluster.replace(LEASE, self._namespace, lease)
        except ApiFailure as failure:
            log.info("The Lease could not be given back, and lapses: %s", failure.message)

    async def _try(self) -> str | None:
        """Takes or renews it; the holder's name where that is another one."""
        began = time.monotonic()
        lease = await self._cluster.find(LEASE, self._namespace, self._name)
        try:
            if lease is None:
                await self._cluster.create(LEASE, self._namespace, self._manifest(None))
            else:
                holder = lease["spec"].get("holderIdentity") or ""
                if holder not in {"", self._identity} and not self._has_lapsed(lease):
                    return holder
                await self._cluster.replace(LEASE, self._namespace, self._manifest(lease))
        except ApiFailure as failure:
            if failure.conflict:
                return "another one, just now"
            raise
        self._renewed = began
        return None

    def _has_lapsed(self, lease: Object) -> bool:
        version = lease["metadata"]["resourceVersion"]
        if self._seen[0] != version:
            self._seen = (version, time.monotonic())
        lasts: float = lease["spec"].get("leaseDurationSeconds", self._seconds)
        return time.monotonic() - self._seen[1] > lasts

    def _manifest(self, before: Object | None) -> Object:
        now = micro_text_of(time.time())
        spec = {} if before is None else dict(before["spec"])
        if spec.get("holderIdentity") != self._identity:
            spec["leaseTransitions"] = spec.get("leaseTransitions", -1) + 1
            spec["acquireTime"] = now
        spec |= {"holderIdentity": self._identity, "leaseDurationSeconds": self._seconds, "renewTime": now}
        meta: Object = {"name": self._name, "namespace": self._namespace}
        if before is not None:
            meta["resourceVersion"] = before["metadata"]["resourceVersion"]
        return {"apiVersion": LEASE.api_version, "kind": LEASE.kind, "metadata": meta, "spec": spec}
