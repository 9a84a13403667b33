"""What is seen of one pool at one time."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from wan22.errors import Wan22Error
from wan22_operator.caches import Caches, NodeCache
from wan22_operator.cluster import Cluster
from wan22_operator.gateway import Gateway, PoolView
from wan22_operator.models import Models, Resolved, waiting_for
from wan22_operator.names import PoolKey
from wan22_operator.nodes import Node, Nodes
from wan22_operator.placing import gpus_in_use, uses_caches
from wan22_operator.pods import Pods
from wan22_operator.record import Record
from wan22_operator.resources import WAN_POOL
from wan22_operator.settings import OperatorSettings
from wan22_operator.snapshot import STALE_ROUNDS
from wan22_operator.spec import PoolSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class Observed:
    """All that a plan is made from."""

    now: float
    """Seconds since the epoch."""
    spec: PoolSpec
    status: Mapping[str, Any]
    """As the API server has it."""
    record: Record
    pods: Sequence[Mapping[str, Any]]
    """The pool's own."""
    nodes: Mapping[str, Node]
    view: PoolView | None
    """What the gateway said last; None before it said anything of this pool."""
    told: bool
    """That is fresh, and the gateway has looked at every worker."""
    caches: Sequence[NodeCache] = ()
    """Node caches whose claims its workers may be given."""
    gpus_used: Mapping[str, int] = field(default_factory=dict)
    """By workers of the namespace, by node; known where there are caches."""
    model: Resolved | None
    model_error: str | None
    """In words, where the model could not be resolved."""


class Sources:
    """Where observations come from; shared by all pools."""

    def __init__(
        self,
        cluster: Cluster,
        gateway: Gateway,
        models: Models,
        pods: Pods,
        nodes: Nodes,
        caches: Caches,
        settings: OperatorSettings,
    ) -> None:
        self.cluster = cluster
        self.gateway = gateway
        self.models = models
        self.pods = pods
        self.nodes = nodes
        self.caches = caches
        self.settings = settings

    async def observe(self, key: PoolKey) -> Observed | None:
        """Looks at everything anew; None where there is no such pool, or it is being deleted. Raises ApiFailure."""
        await self.pods.current(key.namespace)
        manifest = await self.cluster.find(WAN_POOL, key.namespace, key.name)
        if manifest is None or "deletionTimestamp" in manifest["metadata"]:
            return None
        spec, status = PoolSpec.parse(manifest), manifest.get("status", {})
        record = Record.from_status(status, time.time())
        pods = await self.pods.of(key, spec.uid, record.workers)
        model, error = await self._model(spec)
        caches = await self.caches.of(key.namespace)
        used: Mapping[str, int] = {}
        if uses_caches(spec, caches):
            used = gpus_in_use(await self.pods.all(key.namespace))
        now = time.time()
        view = self.gateway.views.get(key.pool)
        stale = STALE_ROUNDS * self.settings.resync_seconds
        return Observed(
            now=now,
            spec=spec,
            status=status,
            record=record,
            pods=pods,
            nodes=await self.nodes.all({node for pod in pods if (node := pod["spec"].get("nodeName"))}),
            view=view,
            told=view is not None and view.pool.demand.complete and now - view.time < stale,
            caches=caches,
            gpus_used=used,
            model=model,
            model_error=error,
        )

    async def _model(self, spec: PoolSpec) -> tuple[Resolved | None, str | None]:
        try:
            return await self.models.resolve(spec.model, spec.precision), None
        except Wan22Error as error:
            return None, waiting_for(spec.model, error)
