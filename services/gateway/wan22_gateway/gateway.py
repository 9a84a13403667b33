"""The gateway as a whole: its parts put together and run until told to stop."""

from __future__ import annotations

import asyncio
import logging
import shutil
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial

from wan22.errors import Wan22Error
from wan22.server import Server
from wan22.v1 import generation_pb2_grpc, pool_pb2_grpc
from wan22_gateway.adapters import Adapters
from wan22_gateway.admission import Admission
from wan22_gateway.attempt import AttemptRunner
from wan22_gateway.discovery import Discovery
from wan22_gateway.dispatcher import Dispatcher
from wan22_gateway.generation_servicer import GenerationServicer
from wan22_gateway.housekeeping import keep_house
from wan22_gateway.media import MediaLibrary
from wan22_gateway.pool_servicer import PoolServicer
from wan22_gateway.prompt_length import PromptLengths
from wan22_gateway.results import Results
from wan22_gateway.settings import GatewaySettings
from wan22_gateway.store.claims import Claim
from wan22_gateway.store.database import Database
from wan22_gateway.worker_channels import WorkerChannels

log = logging.getLogger(__name__)
SERVICES = ("wan22.v1.GenerationService", "wan22.v1.PoolService")
STOP_GRACE = 1.0
"""Seconds for calls in flight when stopping; watches are cut, and their clients resume at the next gateway."""
PAUSE_SECONDS = 1.0
"""How long discovery, dispatch or housekeeping rests after the store has failed them."""


@asynccontextmanager
async def serve(settings: GatewaySettings) -> AsyncIterator[Server]:
    """Runs a gateway while the context lasts. Raises FailedPrecondition when its store is in use or too new."""
    database = Database(settings.store)
    spool = settings.store / "spool"
    shutil.rmtree(spool, ignore_errors=True)  # of an earlier process
    spool.mkdir()
    results = Results(settings.results)
    channels = WorkerChannels()
    prompts = PromptLengths(settings.store / "tokenizers", settings.registry)
    media = MediaLibrary(database, results)
    discovery = Discovery(database, channels, settings.worker_lease_seconds)
    owner = str(uuid.uuid4())

    def runner(claim: Claim) -> AttemptRunner:
        return AttemptRunner(claim, database, channels, results, media, spool)

    dispatcher = Dispatcher(
        database,
        owner,
        runner,
        lease_seconds=settings.lease_seconds,
        resume_wait=settings.resume_wait_seconds,
    )
    admission = Admission(database, prompts, Adapters(settings.registry), settings.queue_limit)
    generations = GenerationServicer(database, admission, results, media)
    pools = PoolServicer(database, prompts, discovery)
    server = Server(
        [
            partial(generation_pb2_grpc.add_GenerationServiceServicer_to_server, generations),
            partial(pool_pb2_grpc.add_PoolServiceServicer_to_server, pools),
        ],
        host=settings.host,
        port=settings.port,
        health_port=settings.health_port,
        strict=True,
        reflected=SERVICES if settings.reflection else (),
        stop_grace=STOP_GRACE,
    )
    try:
        # A fault in the work ends the group, hence the process: a gateway that only seems to serve is worse than none.
        async with server, asyncio.TaskGroup() as group:
            work = [
                group.create_task(_keep_going(part))
                for part in (discovery.run, dispatcher.run, partial(keep_house, database, results))
            ]
            server.set_ready(True)
            log.info("Serving on %s:%d, store %s.", settings.host, server.port, settings.store)
            yield server
            for task in work:
                task.cancel()
    finally:
        await channels.close()
        await database.close()


async def _keep_going(part: Callable[[], Awaitable[None]]) -> None:
    """Runs a part for ever; trouble with the store (a full disk, say) pauses it."""
    while True:
        try:
            await part()
        except* Wan22Error as group:
            log.warning("Paused for %g s: %s", PAUSE_SECONDS, group.exceptions[0])
        await asyncio.sleep(PAUSE_SECONDS)
