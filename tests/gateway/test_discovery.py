from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from wan22.v1 import inference_pb2, pool_pb2
from wan22_gateway.discovery import Discovery
from wan22_gateway.store import pools
from wan22_gateway.store.sqlite import SqliteDatabase
from wan22_gateway.worker_channels import WorkerChannels

from . import rows
from .scripted_worker import T2V, ScriptedWorkerServicer, serve, until


class CountedWorkerServicer(ScriptedWorkerServicer):
    """Counts who asks."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = asyncio.Semaphore(0)

    async def GetWorker(self, request: inference_pb2.GetWorkerRequest, context: Any) -> inference_pb2.Worker:
        self.asked.release()
        return await super().GetWorker(request, context)


async def test_who_was_followed_before_trouble_with_the_store_is_followed_after_it(tmp_path: Path) -> None:
    worker, channels, database = CountedWorkerServicer(), WorkerChannels(None), SqliteDatabase(tmp_path)
    async with asyncio.timeout(120), serve(worker) as address:
        pool = pool_pb2.Pool(
            name=rows.POOL, variant=T2V, model_version=rows.VERSION, max_workers=1, worker_targets=[address]
        )
        await database.write(pools.apply, pool)
        discovery = Discovery(database, channels, 60.0)
        first = asyncio.create_task(discovery.run())
        await worker.asked.acquire()
        first.cancel()  # as a failure of the store ends it
        await asyncio.wait([first])
        asked = worker.asked = asyncio.Semaphore(0)
        second = asyncio.create_task(discovery.run())
        await asked.acquire()
        await until(lambda: database.read(pools.workers_of, rows.POOL))
        second.cancel()
        await asyncio.wait([second])
    await channels.close()
    await database.close()


async def test_a_target_that_no_name_can_be_hides_no_other(tmp_path: Path) -> None:
    channels, database = WorkerChannels(None), SqliteDatabase(tmp_path)
    async with asyncio.timeout(120), serve(ScriptedWorkerServicer()) as address:
        targets = ["a..b:1", f"{64 * 'a'}:1", address]
        pool = pool_pb2.Pool(
            name=rows.POOL, variant=T2V, model_version=rows.VERSION, max_workers=1, worker_targets=targets
        )
        await database.write(pools.apply, pool)  # as an earlier version took it
        work = asyncio.create_task(Discovery(database, channels, 60.0).run())
        await until(lambda: database.read(pools.workers_of, rows.POOL))
        work.cancel()
        await asyncio.wait([work])
    await channels.close()
    await database.close()
