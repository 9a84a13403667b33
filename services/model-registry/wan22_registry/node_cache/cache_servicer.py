"""CacheService: translates messages."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Any

import grpc
from google.protobuf.empty_pb2 import Empty

from wan22.cache import Cache
from wan22.durable_files import to_its_end
from wan22.errors import FailedPrecondition
from wan22.v1 import cache_pb2, cache_pb2_grpc
from wan22_registry.node_cache.keeper import Keeper
from wan22_registry.node_cache.kept_version import check_reference
from wan22_registry.node_cache.wanted import Wanted

Context = grpc.aio.ServicerContext[Any, Any]


class CacheServicer(cache_pb2_grpc.CacheServiceServicer):
    """Serves one folder; `fixed` are the references of the settings."""

    def __init__(self, keeper: Keeper, cache: Cache, wanted: Wanted, fixed: Collection[str], quota: int | None) -> None:
        self._keeper = keeper
        self._cache = cache
        self._wanted = wanted
        self._fixed = fixed
        self._quota = quota
        self._changing = asyncio.Lock()

    async def Prefetch(self, request: cache_pb2.PrefetchRequest, context: Context) -> cache_pb2.CachedVersion:
        """Adds to the list, then wakes the keeper."""
        reference = check_reference(request.reference)
        async with self._changing:
            await self._write({*self._keeper.kept, reference})
            return self._keeper.keep(reference).message()

    async def Unprefetch(self, request: cache_pb2.UnprefetchRequest, context: Context) -> Empty:
        """Takes from the list."""
        reference = check_reference(request.reference)
        if reference in self._fixed:
            text = f"{reference} is kept by the setting --prefetch (WAN22_CACHE_PREFETCH): take it out there."
            raise FailedPrecondition(text)
        async with self._changing:
            await self._write({*self._keeper.kept} - {reference})
            self._keeper.release(reference)
        return Empty()

    async def GetCache(self, request: cache_pb2.GetCacheRequest, context: Context) -> cache_pb2.Cache:
        """Tells what the keeper knows."""
        versions = [kept.message() for _, kept in sorted(self._keeper.kept.items())]
        used = await asyncio.to_thread(self._cache.used_bytes)
        return cache_pb2.Cache(versions=versions, used_bytes=used, quota_bytes=self._quota)

    async def _write(self, references: Collection[str]) -> None:
        await to_its_end(self._wanted.write, set(references) - set(self._fixed))
