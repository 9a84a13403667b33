"""What kopf is for: watches that wake loops. No timer, daemon, finalizer or change handler: those write to objects.

Pods, of which there are most, are followed by `pods`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from inspect import isawaitable
from typing import Any, Protocol

import kopf
from kopf._core.engines.peering import Identity
from kubernetes.aio.client import Configuration

from wan22_operator.cluster import LISTED_AT_ONCE
from wan22_operator.names import OURS, POOL, PoolKey
from wan22_operator.resources import GROUP, VERSION
from wan22_operator.settings import OperatorSettings
from wan22_operator.watch_log import read_watches
from wan22_operator.watch_session import watch_session

WATCH_SECONDS, WATCH_CLIENT_SECONDS = 60, 70
"""How long a watch lasts at the server, and here: one that has died silently is opened anew after that."""
CONNECT_SECONDS = 10.0
IDLE_SECONDS = 1.0
"""How long kopf keeps a task, and the last event, of an object of which nothing more comes."""


class Sleepers(Protocol):
    """Who is woken."""

    def pool_event(self, key: PoolKey) -> None:
        """A WanPool, or a pod of it, has changed."""

    def children_event(self, key: PoolKey) -> None:
        """A shared object of a pool has changed."""

    def model_event(self, key: PoolKey) -> None:
        """A WanModel has changed."""

    def node_event(self, manifest: Mapping[str, Any]) -> None:
        """A node has changed."""


def registry_of(sleepers: Sleepers, configuration: Configuration) -> kopf.OperatorRegistry:
    """Handlers that wake, and nothing else; kopf would call those that are not asynchronous in threads of their own."""
    registry = kopf.OperatorRegistry()

    @kopf.on.login(registry=registry)
    async def login(**_: Any) -> kopf.AiohttpSession:
        return await _connection(configuration)

    @kopf.on.event(GROUP, VERSION, "wanpools", registry=registry)
    async def pool(body: Mapping[str, Any], **_: Any) -> None:
        sleepers.pool_event(PoolKey.of(body))

    @kopf.on.event(GROUP, VERSION, "wanmodels", registry=registry)
    async def model(body: Mapping[str, Any], **_: Any) -> None:
        sleepers.model_event(PoolKey.of(body))

    async def child(body: Mapping[str, Any], **_: Any) -> None:
        sleepers.children_event(PoolKey.of_part(body))

    for group, plural in (("", "services"), ("", "serviceaccounts"), ("networking.k8s.io", "networkpolicies")):
        kopf.on.event(group, "v1", plural, labels={POOL: kopf.PRESENT}, registry=registry)(child)

    @kopf.on.event("", "v1", "nodes", registry=registry)
    async def node(body: Mapping[str, Any], **_: Any) -> None:
        sleepers.node_event(body)

    return registry


def kopf_settings() -> kopf.OperatorSettings:
    """Kopf as a watcher: it posts nothing and looks for no peers; resources are scanned once, at the start."""
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.scanning.disabled = True
    settings.peering.standalone = True
    settings.watching.server_timeout = WATCH_SECONDS
    settings.watching.client_timeout = WATCH_CLIENT_SECONDS
    settings.watching.inactivity_timeout = WATCH_CLIENT_SECONDS
    settings.watching.connect_timeout = CONNECT_SECONDS
    settings.watching.chunk_size = LISTED_AT_ONCE
    settings.queueing.idle_timeout = IDLE_SECONDS
    settings.process.ultimate_exiting_timeout = 10.0
    for plural in ("services", "serviceaccounts"):
        settings.watching.label_selectors["", "v1", plural] = OURS
    settings.watching.label_selectors["networking.k8s.io", "v1", "networkpolicies"] = OURS
    return settings


async def watch(sleepers: Sleepers, configuration: Configuration, settings: OperatorSettings) -> None:
    """Watches until SIGTERM or SIGINT."""
    for handled in ("kopf.objects", "kopf.activities"):
        logging.getLogger(handled).setLevel(logging.WARNING)  # each event is not news
    read_watches()
    await kopf.operator(
        registry=registry_of(sleepers, configuration),
        settings=kopf_settings(),
        # else kopf asks for its user's name, which a pod's user need not have
        identity=Identity(settings.identity),
        standalone=True,
        clusterwide=not settings.namespaces,
        namespaces=settings.namespaces,
    )


async def _connection(configuration: Configuration) -> kopf.AiohttpSession:
    """The same API server and user as everything else; kopf asks again when a token has expired."""
    if configuration.refresh_api_key_hook is not None:
        refreshing = configuration.refresh_api_key_hook(configuration)
        if isawaitable(refreshing):
            await refreshing
    scheme, _, token = (configuration.api_key.get("BearerToken") or "").rpartition(" ")
    info = kopf.ConnectionInfo(
        server=configuration.host,
        ca_path=configuration.ssl_ca_cert,
        insecure=not configuration.verify_ssl,
        certificate_path=configuration.cert_file,
        private_key_path=configuration.key_file,
        scheme=scheme or None,
        token=token or None,
    )
    return kopf.AiohttpSession(server=configuration.host, aiohttp_session=watch_session(info))
