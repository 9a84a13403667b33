"""The GPU budget that all pools share: claims in one object, changed by compare-and-swap, so that no two exceed it."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, replace

from wan22_operator.cluster import ApiFailure, Cluster, Object
from wan22_operator.names import PoolKey
from wan22_operator.resources import CONFIG_MAP
from wan22_operator.settings import OperatorSettings

log = logging.getLogger(__name__)
CLAIMS = "claims.json"
TRIES = 5
FRESH_ROUNDS = 3


@dataclass(frozen=True, slots=True)
class Claim:
    """What one pool holds of the budget, and what it would like to."""

    gpus: int
    """That it holds, those of leaving workers included."""
    wants: int
    """In all."""
    lateness: float = 0.0
    """Seconds by which its queue is late, a GPU of its workers."""
    time: float = 0.0
    """When that was said; seconds since the epoch."""


@dataclass(frozen=True, slots=True)
class Claims:
    """The object as it was read."""

    manifest: Object | None
    of_pools: Mapping[PoolKey, Claim]


def granted(
    claims: Mapping[PoolKey, Claim],
    pool: PoolKey,
    asked: Claim,
    *,
    held: int,
    step: int,
    budget: int,
    fresh_seconds: float,
) -> Claim:
    """What a pool has after it has asked: what its workers hold already, and of what is free as much as it wants.

    What is free goes to those that are later, a GPU, first: the others leave them as much as they said they want. A
    pool gets whole workers, of `step` GPUs each.
    """
    others = {name: claim for name, claim in claims.items() if name != pool}
    free = budget - sum(claim.gpus for claim in others.values()) - held
    reserved = sum(
        claim.wants - claim.gpus
        for name, claim in others.items()
        if claim.wants > claim.gpus
        and asked.time - claim.time < fresh_seconds
        and (claim.lateness, name) > (asked.lateness, pool)
    )
    more = min(asked.wants - held, free - reserved) // step * step
    return replace(asked, gpus=held + max(0, more))


class Budget:
    """The object of the claims; without a budget in the settings nobody asks it."""

    def __init__(self, cluster: Cluster, settings: OperatorSettings) -> None:
        self._cluster = cluster
        self._namespace = settings.namespace
        self._name = settings.lease_name
        self._gpus = settings.gpu_budget
        self._fresh_seconds = FRESH_ROUNDS * settings.resync_seconds

    @property
    def limited(self) -> bool:
        """Whether there is a budget."""
        return self._gpus is not None

    async def read(self) -> Claims:
        """What is claimed now; to be read before whatever a change of it rests on is looked at. Raises ApiFailure."""
        if not self.limited:
            return Claims(None, {})
        manifest = await self._cluster.find(CONFIG_MAP, self._namespace, self._name)
        written = json.loads(((manifest or {}).get("data") or {}).get(CLAIMS, "{}"))
        return Claims(manifest, {PoolKey(*name.split("/")): Claim(**claim) for name, claim in written.items()})

    async def claim(
        self, read: Claims, key: PoolKey, *, held: int, recorded: int, wants: int, lateness: float, step: int
    ) -> int:
        """The GPUs that a pool may have, `held` at the least: its pods have them. Raises ApiFailure.

        What it has claimed for workers that are `recorded`, with pods or without, it keeps. Where the claims have
        changed since they were `read`, its own only grows: it may be for workers that were not there yet when the pool
        was looked at.
        """
        for number in range(TRIES):
            now = await self.read() if number else read
            known = now.of_pools.get(key, Claim(0, 0))
            has = max(held, known.gpus if number else min(known.gpus, recorded))
            asked = Claim(has, max(wants, has), round(lateness, 1), time.time())
            rules = {"held": has, "step": step, "budget": self._gpus or 0, "fresh_seconds": self._fresh_seconds}
            claim = granted(now.of_pools, key, asked, **rules)  # type: ignore[arg-type]  # each is a number
            if claim.gpus >= claim.wants:
                claim = Claim(claim.gpus, claim.gpus, time=known.time)  # says nothing new while it stays
            if known == claim or await self._write(now, {**now.of_pools, key: claim}):
                return claim.gpus
        log.info("%s: the GPU budget is asked for by many at once: later.", key)
        return held

    async def confirm(self, key: PoolKey) -> int:
        """The GPUs that a pool has claimed, once what they are for is recorded. Raises ApiFailure.

        Written anew: whoever looked at the pool before that can no longer claim less for it.
        """
        for _ in range(TRIES):
            now = await self.read()
            known = now.of_pools.get(key, Claim(0, 0))
            if await self._write(now, {**now.of_pools, key: replace(known, time=time.time())}):
                return known.gpus
        return 0

    async def free(self, read: Claims, keys: Collection[PoolKey]) -> None:
        """Takes from pools that are no more, unless something has changed since the claims were `read`.

        Raises ApiFailure.
        """
        await self._write(read, {key: claim for key, claim in read.of_pools.items() if key not in keys})

    async def _write(self, before: Claims, claims: Mapping[PoolKey, Claim]) -> bool:
        """False where somebody was faster."""
        written = {str(key): asdict(claim) for key, claim in sorted(claims.items())}
        data = {CLAIMS: json.dumps(written, indent=1)}
        meta: Object = {"name": self._name, "namespace": self._namespace}
        if before.manifest is not None:
            meta["resourceVersion"] = before.manifest["metadata"]["resourceVersion"]
        manifest = {"apiVersion": CONFIG_MAP.api_version, "kind": CONFIG_MAP.kind, "metadata": meta, "data": data}
        try:
            if before.manifest is None:
                await self._cluster.create(CONFIG_MAP, self._namespace, manifest)
            else:
                await self._cluster.replace(CONFIG_MAP, self._namespace, manifest)
        except ApiFailure as failure:
            if failure.conflict:
                return False
            raise
        return True
