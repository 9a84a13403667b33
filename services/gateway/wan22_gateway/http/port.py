"""The HTTP port as a whole."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from wan22.server import Guard, Server
from wan22_gateway.download_urls import DownloadUrls
from wan22_gateway.generation_servicer import GenerationServicer
from wan22_gateway.http import (
    console_page,
    generate,
    generations,
    health,
    media,
    metrics_page,
    models,
    signed_video,
    videos,
)
from wan22_gateway.http.app import application
from wan22_gateway.http.certificate import server_context
from wan22_gateway.http.server import HttpServer
from wan22_gateway.metrics import GatewayMetrics
from wan22_gateway.readiness import Readiness
from wan22_gateway.settings import GatewaySettings
from wan22_gateway.store.database import Database

log = logging.getLogger(__name__)


@asynccontextmanager
async def serving_http(
    settings: GatewaySettings,
    database: Database,
    servicer: GenerationServicer,
    urls: DownloadUrls,
    server: Server,
    readiness: Readiness,
    guard: Guard,
    metrics: GatewayMetrics,
) -> AsyncIterator[int | None]:
    """Serves HTTP beside a gRPC server while the context lasts, if the settings ask for it; the bound port."""
    if settings.http == "off":
        yield None
        return
    stopping = asyncio.Event()
    endpoints = [
        *console_page.endpoints(),
        *health.endpoints(lambda: server.live, lambda: server.ready, lambda: readiness.reason),
        *models.endpoints(servicer),
        *generate.endpoints(servicer, stopping),
        *generations.endpoints(servicer, stopping),
        *media.endpoints(servicer),
        *signed_video.endpoints(urls, servicer),
        *videos.endpoints(servicer, database),
        *metrics_page.endpoints(database, metrics.registry, is_open=settings.metrics_open),
    ]
    app = application(endpoints, guard, metrics.http, is_open=settings.auth == "off")
    tls = None if settings.tls is None else server_context(settings.tls)
    async with HttpServer(app, host=settings.host, port=settings.http_port, stopping=stopping, tls=tls) as http:
        log.info("HTTP is at %s.", http.address)
        yield http.port
