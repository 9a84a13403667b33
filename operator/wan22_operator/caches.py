"""The node caches: which there are, what each holds, and what it is asked to fetch."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import grpc

from wan22.errors import Wan22Error
from wan22.renewed_channel import RenewedChannel
from wan22.status import from_rpc_error
from wan22.tls import Tls
from wan22.v1 import cache_pb2, cache_pb2_grpc
from wan22_operator.cluster import Cluster, Object
from wan22_operator.names import COMPONENT, NODE_CACHE
from wan22_operator.resources import POD
from wan22_operator.silence import Silence

if TYPE_CHECKING:
    from wan22.v1.cache_pb2_grpc import CacheServiceAsyncStub  # is in the stub file only

PORT = 50053
CALL_SECONDS = 3.0
FRESH_SECONDS = 2.0
"""How long an answer is taken for the present state."""
SILENT_SECONDS = 15.0
"""How long one that did not answer is not asked again."""
VOLUME = "cache"
"""Of the cache's pod: its claim is what workers of the node are given."""


@dataclass(frozen=True, slots=True)
class NodeCache:
    """One cache as it was seen last."""

    node: str
    claim: str
    address: str
    versions: Mapping[str, cache_pb2.CachedVersion] = field(default_factory=dict)
    """What it was asked to keep, by the version's name."""
    error: str = ""
    """Why nothing is known of it, in words."""
    used_bytes: int = 0
    quota_bytes: int | None = None

    def has(self, version: str) -> bool:
        """Whether all of a version is there, and stays."""
        return version in self.versions and self.versions[version].state == cache_pb2.CachedVersion.PRESENT


class Caches:
    """Asks the caches of a namespace; each answer serves all who ask at about the same time."""

    def __init__(self, cluster: Cluster, tls: Tls | None) -> None:
        self._cluster = cluster
        self._tls = tls
        self._seen: dict[str, tuple[float, Sequence[NodeCache]]] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        self._channels: dict[str, RenewedChannel] = {}
        self._silence = Silence(SILENT_SECONDS)

    async def of(self, namespace: str) -> Sequence[NodeCache]:
        """The namespace's caches, by node. Raises ApiFailure; a cache that does not answer is among them."""
        async with self._locks.setdefault(namespace, asyncio.Lock()):
            known = self._seen.get(namespace)
            if known is None or time.monotonic() - known[0] > FRESH_SECONDS:
                pods = await self._cluster.list(POD, namespace, labels=f"{COMPONENT}={NODE_CACHE}", cached=True)
                found = [cache for pod in pods if (cache := _cache_of(pod)) is not None]
                asked = await asyncio.gather(*(self._ask(cache) for cache in found))
                known = (time.monotonic(), sorted(asked, key=lambda cache: cache.node))
                self._seen[namespace] = known
            return known[1]

    async def prefetch(self, cache: NodeCache, version: str) -> None:
        """Has it keep a version. Raises errors of wan22.errors."""
        await self._call(cache, "Prefetch", cache_pb2.PrefetchRequest(reference=version))

    async def unprefetch(self, cache: NodeCache, version: str) -> None:
        """Lets it evict a version. Raises errors of wan22.errors."""
        await self._call(cache, "Unprefetch", cache_pb2.UnprefetchRequest(reference=version))

    async def close(self) -> None:
        """Ends the connections."""
        for channel in self._channels.values():
            await channel.close()

    async def _ask(self, cache: NodeCache) -> NodeCache:
        request = cache_pb2.GetCacheRequest()
        try:
            said: cache_pb2.Cache = await self._silence.ask(
                cache.address, lambda: self._call(cache, "GetCache", request)
            )
        except Wan22Error as error:
            return replace(cache, error=f"The cache of node {cache.node} does not answer: {error.message}")
        versions = {one.version or one.reference: one for one in said.versions}
        quota = said.quota_bytes if said.HasField("quota_bytes") else None
        return NodeCache(
            cache.node, cache.claim, cache.address, versions, used_bytes=said.used_bytes, quota_bytes=quota
        )

    async def _call(self, cache: NodeCache, method: str, request: Any) -> Any:
        channel = self._channels.get(cache.address)
        if channel is None:
            channel = self._channels[cache.address] = RenewedChannel(cache.address, self._tls, role=NODE_CACHE)
        stub: CacheServiceAsyncStub = cache_pb2_grpc.CacheServiceStub(channel.current())
        try:
            return await getattr(stub, method)(request, timeout=CALL_SECONDS)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from error


def _cache_of(pod: Object) -> NodeCache | None:
    """The cache in a pod that has an address and a claim."""
    volumes = {volume["name"]: volume for volume in pod["spec"].get("volumes", [])}
    claim = volumes.get(VOLUME, {}).get("persistentVolumeClaim", {}).get("claimName")
    node, address = pod["spec"].get("nodeName"), pod.get("status", {}).get("podIP")
    if not claim or not node or not address or "deletionTimestamp" in pod["metadata"]:
        return None
    host = f"[{address}]" if ":" in address else address
    return NodeCache(node, claim, f"{host}:{PORT}")
