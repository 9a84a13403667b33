"""/metrics: what this process has counted, and what the store holds now."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from starlette.responses import Response

from wan22_gateway import store_figures
from wan22_gateway.http.endpoint import Answer, Call, Endpoint, rpc
from wan22_gateway.store.database import Database


def endpoints(database: Database, metrics: CollectorRegistry, *, is_open: bool) -> Sequence[Endpoint]:
    """/metrics, for the role operator unless it is open."""

    async def scrape(_call: Call) -> Response:
        stored = CollectorRegistry()
        stored.register(await database.read(store_figures.read))
        text = await asyncio.to_thread(lambda: generate_latest(metrics) + generate_latest(stored))
        return Response(text, media_type=CONTENT_TYPE_PLAIN_0_0_4)

    return [
        Endpoint(
            method="GET",
            path="/metrics",
            summary="Figures for Prometheus",
            handler=scrape,
            answers={200: Answer("In Prometheus' text format.", {"text/plain": None})},
            rpc=None if is_open else rpc("PoolService", "ListPools"),
            quiet=True,
        )
    ]
