"""The pools of this machine, declared to the gateway as an operator does on a cluster."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Self

from wan22.channels import open_channel
from wan22.client import tls_from_environment
from wan22.client_calls import Calls
from wan22.errors import FailedPrecondition, NotFound
from wan22.v1 import pool_pb2
from wan22.v1.pool_pb2_grpc import PoolServiceStub
from wan22_cli.local.plan import Plan, pool_name

DEADLINE = 10.0
"""Seconds for each try of a call."""


class Pools:
    """A connection to the gateway's PoolService; use as an async context manager."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._calls = Calls(plan.endpoint, None, first_patience=10.0, patience=60.0)

    async def __aenter__(self) -> Self:
        self._channel = open_channel(self._plan.endpoint, tls_from_environment())
        self._stub = PoolServiceStub(self._channel)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._channel.close()

    async def declare(self, variant: str, version: str) -> None:
        """Says that this machine has a variant's workers; they may start later."""
        pool = pool_pb2.Pool(
            name=pool_name(variant),
            variant=variant,
            model_version=version,
            max_workers=self._plan.workers,
            default_for_variant=True,
            worker_targets=self._plan.worker_targets(variant),
        )
        await self._calls.unary(self._stub.ApplyPool, pool_pb2.ApplyPoolRequest(pool=pool), deadline=DEADLINE)

    async def workers(self, variant: str) -> Sequence[pool_pb2.PoolWorker]:
        """What the gateway knows of a variant's workers."""
        request = pool_pb2.GetPoolRequest(name=pool_name(variant))
        return (await self._calls.unary(self._stub.GetPool, request, deadline=DEADLINE)).workers

    async def unfinished(self, variant: str) -> str | None:
        """The version that the unfinished generations of a variant's pool need; None where there are none."""
        request = pool_pb2.GetPoolRequest(name=pool_name(variant))
        try:
            pool = await self._calls.unary(self._stub.GetPool, request, deadline=DEADLINE)
        except NotFound:
            return None
        earlier = {work.model_version: work.queued + work.running for work in pool.demand.earlier}
        unfinished = sum(bucket.count for bucket in pool.demand.queued) + len(pool.demand.running)
        return pool.model_version if unfinished > sum(earlier.values()) else next(iter(earlier), None)

    async def retire(self, variants: Collection[str]) -> list[str]:
        """Removes this machine's pools of other variants; returns those that stay because they have unfinished work."""
        kept = []
        listed = await self._calls.unary(self._stub.ListPools, pool_pb2.ListPoolsRequest(), deadline=DEADLINE)
        for pool in listed.pools:
            if pool.name != pool_name(pool.variant) or pool.variant in variants:
                continue
            request = pool_pb2.DeletePoolRequest(name=pool.name)
            try:
                await self._calls.unary(self._stub.DeletePool, request, deadline=DEADLINE)
            except FailedPrecondition:
                kept.append(pool.variant)
        return kept
