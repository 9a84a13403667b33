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


def granted(
    claims: Mapping[str, Claim], pool: str, asked: Claim, *, held: int, step: int, budget: int, fresh_seconds: float
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

    async def claim(self, key: PoolKey, *, held: int, wants: int, lateness: float, step: int) -> int:
        """The GPUs that a pool may hold, `held` at the least: its workers have them. Raises ApiFailure."""
        asked = Claim(held, max(wants, held), round(lateness, 1), time.time())
        for _ in range(TRIES):
            manifest, claims = await self._read()
            rules = {"held": held, "step": step, "budget": self._gpus or 0, "fresh_seconds": self._fresh_seconds}
            claim = granted(claims, str(key), asked, **rules)  # type: ignore[arg-type]  # each is a number
            if claim.gpus >= claim.wants:
                claim = Claim(claim.gpus, claim.gpus)  # says nothing new while it stays
            if claims.get(str(key), Claim(0, 0)) == claim:
                return claim.gpus
            if await self._write(manifest, {**claims, str(key): claim}):
                return claim.gpus
        log.info("%s: the GPU budget is asked for by many at once: later.", key)
        return held

    async def keep(self, keys: Collection[PoolKey]) -> None:
        """Frees what pools hold that are no more. Raises ApiFailure."""
        if not self.limited:
            return
        manifest, claims = await self._read()
        kept = {name: claim for name, claim in claims.items() if name in {str(key) for key in keys}}
        if kept != claims:
            await self._write(manifest, kept)  # where somebody was faster, the next time

    async def claimed(self) -> frozenset[PoolKey]:
        """The pools that hold something. Raises ApiFailure."""
        return frozenset(PoolKey(*name.split("/")) for name in (await self._read())[1]) if self.limited else frozenset()

    async def _read(self) -> tuple[Object | None, dict[str, Claim]]:
        manifest = await self._cluster.find(CONFIG_MAP, self._namespace, self._name)
        written = json.loads(((manifest or {}).get("data") or {}).get(CLAIMS, "{}"))
        return manifest, {name: Claim(**claim) for name, claim in written.items()}

    async def _write(self, before: Object | None, claims: Mapping[str, Claim]) -> bool:
        """False where somebody was faster."""
        data = {CLAIMS: json.dumps({name: asdict(claim) for name, claim in sorted(claims.items())}, indent=1)}
        meta: Object = {"name": self._name, "namespace": self._namespace}
        if before is not None:
            meta["resourceVersion"] = before["metadata"]["resourceVersion"]
        manifest = {"apiVersion": CONFIG_MAP.api_version, "kind": CONFIG_MAP.kind, "metadata": meta, "data": data}
        try:
            if before is None:
                await self._cluster.create(CONFIG_MAP, self._namespace, manifest)
            else:
                await self._cluster.replace(CONFIG_MAP, self._namespace, manifest)
        except ApiFailure as failure:
            if failure.conflict:
                return False
            raise
        return True
