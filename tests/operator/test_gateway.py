"""The operator's calls of a gateway, some of which are of the release before."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import grpc
import pytest

from wan22.errors import InvalidRequest, Reason
from wan22.server import Server
from wan22.v1 import pool_pb2, pool_pb2_grpc
from wan22_operator.gateway import Gateway

from .observing import KEY, OTHER_VERSION, VERSION

Context = grpc.aio.ServicerContext[Any, Any]


class OlderGateway(pool_pb2_grpc.PoolServiceServicer):
    """Refuses the field that it does not know, as a strict server of the release before does."""

    def __init__(self) -> None:
        self.applied: list[pool_pb2.Pool] = []

    async def ApplyPool(self, request: pool_pb2.ApplyPoolRequest, context: Context) -> pool_pb2.Pool:
        """Takes a pool as it was in that release."""
        if request.pool.earlier_versions or request.pool.obstacle:
            raise InvalidRequest("The request has field number 13 in pool.", reason=Reason.UNKNOWN_FIELD)
        if not request.pool.variant:
            raise InvalidRequest("variant is missing.", field="pool.variant")
        self.applied.append(request.pool)
        return request.pool


@pytest.mark.parametrize("newer", [{"earlier_versions": [VERSION]}, {"obstacle": "no GPU is free"}])
async def test_a_gateway_of_the_release_before_is_told_without_what_it_does_not_know(newer: dict[str, Any]) -> None:
    older = OlderGateway()  # type: ignore[abstract]  # what else there is answers UNIMPLEMENTED
    add = partial(pool_pb2_grpc.add_PoolServiceServicer_to_server, older)
    pool = pool_pb2.Pool(name=KEY.pool, variant="t2v-a14b", model_version=OTHER_VERSION, **newer)
    async with (
        Server([add], host="127.0.0.1", port=0) as server,
        Gateway(f"127.0.0.1:{server.port}", None, "") as gateway,
    ):
        await gateway.apply(pool)
        with pytest.raises(InvalidRequest, match="variant is missing"):
            await gateway.apply(pool_pb2.Pool(name=KEY.pool))
    assert older.applied == [pool_pb2.Pool(name=KEY.pool, variant="t2v-a14b", model_version=OTHER_VERSION)]


class CrowdedGateway(pool_pb2_grpc.PoolServiceServicer):
    """Tells once of so many pools with long queues that gRPC's usual limit is passed."""

    def __init__(self) -> None:
        queued = [pool_pb2.DemandBucket(count=1, predicted_seconds=60.0 + number) for number in range(256)]
        demand = pool_pb2.Demand(queued=queued, complete=True)
        self.pools = [pool_pb2.Pool(name=f"pools/videos.pool-{number}", demand=demand) for number in range(2000)]

    async def WatchPools(
        self, request: pool_pb2.WatchPoolsRequest, context: Context
    ) -> AsyncIterator[pool_pb2.WatchPoolsResponse]:
        """Once."""
        yield pool_pb2.WatchPoolsResponse(pools=self.pools)
        await asyncio.Event().wait()


async def test_thousands_of_pools_with_long_queues_are_heard_of() -> None:
    crowded = CrowdedGateway()  # type: ignore[abstract]  # what else there is answers UNIMPLEMENTED
    assert sum(pool.ByteSize() for pool in crowded.pools) > 1.2 * (4 << 20)
    add = partial(pool_pb2_grpc.add_PoolServiceServicer_to_server, crowded)
    heard: asyncio.Queue[str] = asyncio.Queue()
    async with (
        Server([add], host="127.0.0.1", port=0, stop_grace=0.1) as server,
        Gateway(f"127.0.0.1:{server.port}", None, "") as gateway,
    ):
        following = asyncio.create_task(gateway.run(heard.put_nowait))
        async with asyncio.timeout(30.0):
            await heard.get()
        assert gateway.views.keys() == {pool.name for pool in crowded.pools}
        following.cancel()
