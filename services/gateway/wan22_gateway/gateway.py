"""The gateway as a whole: its parts put together and run until told to stop."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
from dataclasses import dataclass
from functools import partial

from wan22.errors import Wan22Error
from wan22.keda import externalscaler_pb2_grpc
from wan22.metrics_server import process_metrics
from wan22.peers import Peers
from wan22.server import Guard, Server
from wan22.v1 import admin_pb2_grpc, generation_pb2_grpc, pool_pb2_grpc, webhook_pb2_grpc
from wan22_gateway.adapters import Adapters
from wan22_gateway.admin_servicer import AdminServicer
from wan22_gateway.admission import Admission
from wan22_gateway.attempt import AttemptRunner
from wan22_gateway.discovery import Discovery
from wan22_gateway.dispatcher import Dispatcher
from wan22_gateway.download_urls import DownloadUrls
from wan22_gateway.generation_servicer import GenerationServicer
from wan22_gateway.housekeeping import keep_house
from wan22_gateway.http.port import serving_http
from wan22_gateway.identity.access import Access, let_everybody_in
from wan22_gateway.identity.declared import apply, follow
from wan22_gateway.identity.declared import read as read_declared
from wan22_gateway.identity.tokens import Issuer, Tokens
from wan22_gateway.intake import Intake
from wan22_gateway.keda_servicer import KedaServicer
from wan22_gateway.local_folder import LocalFolder
from wan22_gateway.media import MediaLibrary
from wan22_gateway.metrics import GatewayMetrics
from wan22_gateway.places import Places
from wan22_gateway.pool_servicer import PoolServicer
from wan22_gateway.prompt_hook import PromptHook
from wan22_gateway.prompt_length import PromptLengths
from wan22_gateway.readiness import Readiness
from wan22_gateway.result_places import open_place
from wan22_gateway.results import Results
from wan22_gateway.retention import Retention
from wan22_gateway.settings import GatewaySettings
from wan22_gateway.store import objects
from wan22_gateway.store.claims import Claim
from wan22_gateway.store.database import Database
from wan22_gateway.store.opening import open_store
from wan22_gateway.webhook_servicer import WebhookServicer
from wan22_gateway.webhooks.addresses import parse_networks
from wan22_gateway.webhooks.dispatcher import WebhookDispatcher
from wan22_gateway.webhooks.poster import Poster
from wan22_gateway.worker_channels import WorkerChannels

log = logging.getLogger(__name__)
SERVICES = (
    "wan22.v1.GenerationService",
    "wan22.v1.PoolService",
    "wan22.v1.AdminService",
    "wan22.v1.WebhookService",
    "externalscaler.ExternalScaler",
)
STOP_GRACE = 1.0
"""Seconds for calls in flight when stopping; watches are cut, and their clients resume at the next gateway."""
PAUSE_SECONDS = 1.0
"""How long discovery, dispatch or housekeeping rests after the store has failed them."""


@dataclass(frozen=True)
class Serving:
    """Where a gateway answers."""

    port: int
    health_port: int | None
    http_port: int | None


@asynccontextmanager
async def serve(settings: GatewaySettings) -> AsyncIterator[Serving]:
    """Runs a gateway while the context lasts. Raises FailedPrecondition when its store cannot be used."""
    declared = None if settings.tenants_file is None else read_declared(settings.tenants_file)
    database = await open_store(settings.store, settings.store_password_file)
    folder = LocalFolder(settings.local_folder, settings.store)
    results = Results(open_place(settings.results, settings.s3_endpoint, settings.s3_public_endpoint))
    retention = Retention.of_days(
        settings.video_retention_days, settings.generation_retention_days, settings.media_retention_days
    )
    channels = WorkerChannels(settings.tls)
    prompts = PromptLengths(folder.tokenizers, settings.registry, settings.tls)
    media = MediaLibrary(database, results)
    urls = DownloadUrls(database, results)
    discovery = Discovery(database, channels, settings.worker_lease_seconds)

    def runner(claim: Claim) -> AttemptRunner:
        return AttemptRunner(claim, database, channels, results, media, folder.spool)

    dispatcher = Dispatcher(
        database,
        str(uuid.uuid4()),
        runner,
        lease_seconds=settings.lease_seconds,
        resume_wait=settings.resume_wait_seconds,
    )
    places = Places(database)
    intake = Intake(database, settings.queue_limit)
    hook = _prompt_hook(settings)
    admission = Admission(database, prompts, Adapters(settings.registry, settings.tls), intake, retention, hook)
    generations = GenerationServicer(database, admission, results, media, urls, places)
    keda_servicer = KedaServicer(database, discovery.complete)
    poster = Poster(parse_networks(settings.webhook_private_networks), settings.webhook_ca)
    guard = _guard(settings, database)
    metrics = GatewayMetrics(process_metrics())
    database.observe = metrics.stored
    server = _grpc_server(
        settings,
        guard,
        metrics,
        [
            partial(generation_pb2_grpc.add_GenerationServiceServicer_to_server, generations),
            partial(pool_pb2_grpc.add_PoolServiceServicer_to_server, PoolServicer(database, prompts, discovery)),
            partial(admin_pb2_grpc.add_AdminServiceServicer_to_server, AdminServicer(database)),
            partial(externalscaler_pb2_grpc.add_ExternalScalerServicer_to_server, keda_servicer),
            partial(webhook_pb2_grpc.add_WebhookServiceServicer_to_server, WebhookServicer(database)),
        ],
    )
    try:
        # A fault in the work ends the group, hence the process: a gateway that only seems to serve is worse than none.
        if declared is not None:
            await database.write(apply, declared)
        if database.alone:
            await database.write(objects.abandon_pending)  # of an earlier process
        await results.check()
        _warn_of_folder(settings, database)
        readiness = Readiness(database, server)
        http = serving_http(settings, database, generations, urls, server, readiness, guard, metrics)
        async with AsyncExitStack() as stack, poster, intake, server, http as http_port, asyncio.TaskGroup() as group:
            await stack.enter_async_context(hook or nullcontext())
            urls.base = _public_url(settings, http_port)
            if settings.keda_port is not None:
                await _serve_keda(stack, settings, keda_servicer)
            work = [
                group.create_task(_keep_going(part))
                for part in (
                    discovery.run,
                    dispatcher.run,
                    places.run,
                    readiness.run,
                    WebhookDispatcher(database, poster).run,
                    partial(keep_house, database, results, retention),
                )
            ]
            if settings.tenants_file is not None and declared is not None:
                work.append(group.create_task(follow(database, settings.tenants_file, declared)))
            readiness.begin()
            log.info("Serving on %s:%d, store %s.", settings.host, server.port, settings.store_name)
            yield Serving(server.port, server.health_port, http_port)
            for task in work:
                task.cancel()
    finally:
        await channels.close()
        await database.close()
        folder.close()


def _grpc_server(
    settings: GatewaySettings, guard: Guard, metrics: GatewayMetrics, register: Sequence[Callable[..., None]]
) -> Server:
    """All services on the port that clients, operators and administrators call."""
    return Server(
        register,
        host=settings.host,
        port=settings.port,
        health_port=settings.health_port,
        strict=True,
        reflected=SERVICES if settings.reflection else (),
        stop_grace=STOP_GRACE,
        tls=settings.tls,
        guard=guard,
        observe=metrics.rpc,
    )


def keda_server(settings: GatewaySettings, servicer: KedaServicer) -> Server:
    """KEDA's external scaler on a port of its own: KEDA sends no keys, but it has a client certificate.

    Fields that a newer KEDA may send are not refused: they are not for us.
    """
    return Server(
        [partial(externalscaler_pb2_grpc.add_ExternalScalerServicer_to_server, servicer)],
        host=settings.host,
        port=settings.keda_port or 0,
        stop_grace=STOP_GRACE,
        tls=settings.tls,
        peers=Peers.of(settings.keda_peers),
    )


async def _serve_keda(stack: AsyncExitStack, settings: GatewaySettings, servicer: KedaServicer) -> None:
    keda = await stack.enter_async_context(keda_server(settings, servicer))
    log.info("Serving KEDA on %s:%d.", settings.host, keda.port)


def _prompt_hook(settings: GatewaySettings) -> PromptHook | None:
    """The hook that the settings name; it may be inside, since the operator has named it."""
    if not settings.prompt_hook or settings.prompt_hook_secret_file is None:
        return None
    return PromptHook(
        Poster(parse_networks("0.0.0.0/0,::/0"), settings.webhook_ca),
        settings.prompt_hook,
        settings.prompt_hook_secret_file,
        seconds=settings.prompt_hook_seconds,
        fail_open=settings.prompt_hook_open,
    )


def _warn_of_folder(settings: GatewaySettings, database: Database) -> None:
    if not database.alone and not settings.results.startswith("s3://"):
        log.warning("Other gateways may share the store: they must share the folder %s, too.", settings.results)


def _public_url(settings: GatewaySettings, http_port: int | None) -> str:
    """What URLs of this gateway begin with; empty while it serves no HTTP."""
    if settings.public_url or http_port is None:
        return settings.public_url.rstrip("/")
    scheme = "http" if settings.tls is None else "https"
    return f"{scheme}://localhost:{http_port}"


def _guard(settings: GatewaySettings, database: Database) -> Guard:
    if settings.auth == "off":
        log.warning("WAN22_GATEWAY_AUTH is off: whoever reaches this port may do everything.")
        return let_everybody_in
    tokens = None
    if settings.oidc_issuer:
        claims = (settings.oidc_tenant_claim, settings.oidc_roles_claim)
        tokens = Tokens(Issuer(settings.oidc_issuer, settings.oidc_audience, settings.oidc_jwks, *claims))
    return Access(database, tokens).guard


async def _keep_going(part: Callable[[], Awaitable[None]]) -> None:
    """Runs a part for ever; trouble with the store (a full disk, say) pauses it."""
    while True:
        try:
            await part()
        except* Wan22Error as group:
            log.warning("Paused for %g s: %s", PAUSE_SECONDS, group.exceptions[0])
        await asyncio.sleep(PAUSE_SECONDS)
