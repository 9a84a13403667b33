"""One round of one WanModel: what its nodes' caches hold is compared with what they should."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

from wan22.errors import Wan22Error
from wan22_operator.caches import NodeCache
from wan22_operator.memory import Memory
from wan22_operator.model_plan import model_plan
from wan22_operator.models import waiting_for
from wan22_operator.names import PoolKey
from wan22_operator.observed import Sources
from wan22_operator.recorder import Recorder
from wan22_operator.resources import WAN_MODEL, WAN_POOL

log = logging.getLogger(__name__)
BUSY_SECONDS = 2.0
"""How often nodes are looked at that fetch something."""


class ModelReconciler:
    """Makes caches hold what WanModels say; safe to run any number of times."""

    def __init__(self, sources: Sources, recorder: Recorder) -> None:
        self._sources = sources
        self._recorder = recorder

    async def reconcile(self, key: PoolKey, memory: Memory) -> bool:
        """One round; False where there is no such model any more. Raises ApiFailure."""
        cluster = self._sources.cluster
        manifest = await cluster.find(WAN_MODEL, key.namespace, key.name)
        if manifest is None or "deletionTimestamp" in manifest["metadata"]:
            await self._let_go_unwanted(key.namespace)
            return False
        resolved, error = None, None
        try:
            resolved = await self._sources.models.resolve(manifest["spec"]["model"])
        except Wan22Error as failure:
            error = waiting_for(manifest["spec"]["model"], failure)
        caches, nodes = await self._sources.caches.of(key.namespace), await self._sources.nodes.all()
        planned = model_plan(manifest, resolved, error, caches, nodes, time.time())
        if planned.status != manifest.get("status"):
            await self._write(key, manifest, planned.status)
        version = planned.status.get("modelVersion", "")
        for cache in planned.fetch:
            await self._ask(cache, version, keep=True)
        for cache in planned.let_go:
            await self._ask(cache, version, keep=False)
        if manifest.get("status", {}).get("modelVersion", version) != version:
            await self._let_go_unwanted(key.namespace)
        memory.next_round = BUSY_SECONDS if planned.busy else None
        return True

    async def _write(self, key: PoolKey, manifest: Mapping[str, Any], status: Mapping[str, Any]) -> None:
        meta = {
            "name": key.name,
            "namespace": key.namespace,
            "resourceVersion": manifest["metadata"]["resourceVersion"],
        }
        written = {"apiVersion": WAN_MODEL.api_version, "kind": WAN_MODEL.kind, "metadata": meta, "status": status}
        await self._sources.cluster.apply(WAN_MODEL, key.namespace, written, subresource="status", force=True)
        before = {one["type"]: one["reason"] for one in manifest.get("status", {}).get("conditions", [])}
        for one in status["conditions"]:
            if one["type"] == "Ready" and before.get("Ready") != one["reason"]:
                kind = "Normal" if one["status"] == "True" or one["reason"] == "Fetching" else "Warning"
                uid = manifest["metadata"]["uid"]
                await self._recorder.record(WAN_MODEL, key, uid, kind=kind, reason=one["reason"], note=one["message"])

    async def _let_go_unwanted(self, namespace: str) -> None:
        """Lets caches evict what no resource of the namespace asks for any more; what their settings name stays."""
        cluster = self._sources.cluster
        found = [*await cluster.list(WAN_MODEL, namespace), *await cluster.list(WAN_POOL, namespace)]
        fields = ("modelVersion", "earlierModelVersion")
        staying = [one.get("status", {}) for one in found if "deletionTimestamp" not in one["metadata"]]
        wanted = {status.get(field) for status in staying for field in fields}
        for cache in await self._sources.caches.of(namespace):
            for version in _unwanted(cache, wanted):
                await self._ask(cache, version, keep=False)

    async def _ask(self, cache: NodeCache, version: str, *, keep: bool) -> None:
        caches = self._sources.caches
        try:
            await (caches.prefetch if keep else caches.unprefetch)(cache, version)
        except Wan22Error as error:
            log.info("The cache of node %s does not take %s: %s", cache.node, version, error.message)


def _unwanted(cache: NodeCache, wanted: set[str | None]) -> Sequence[str]:
    """Versions by name alone: a reference with a tag is of the cache's settings or of an administrator."""
    return [name for name, one in cache.versions.items() if one.reference.startswith("models/") and name not in wanted]
