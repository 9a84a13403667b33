"""Kubernetes events: what the operator did and why, beside the object it concerns."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Mapping
from typing import Any

from wan22_operator.cluster import ApiFailure, Cluster
from wan22_operator.names import PoolKey
from wan22_operator.resources import EVENT, Resource
from wan22_operator.times import micro_text_of

log = logging.getLogger(__name__)
REPEAT_SECONDS = 600.0
"""The same event of the same object is not written again for so long."""
NOTE_LIMIT = 1024
KEPT = 4096


class Recorder:
    """Writes events; one that cannot be written is logged, and stops nothing."""

    def __init__(self, cluster: Cluster, identity: str) -> None:
        self._cluster = cluster
        self._identity = identity
        self._written: dict[tuple[str, str, str], float] = {}

    async def record(
        self,
        resource: Resource,
        key: PoolKey,
        uid: str,
        *,
        kind: str,
        reason: str,
        note: str,
    ) -> None:
        """One event; `kind` is Normal or Warning."""
        now, same = time.time(), (uid, reason, note)
        if now - self._written.get(same, 0.0) < REPEAT_SECONDS:
            return
        self._written[same] = now
        if len(self._written) > KEPT:
            self._written = {one: at for one, at in self._written.items() if now - at < REPEAT_SECONDS}
        log.info("%s %s: %s", key, reason, note)
        manifest: Mapping[str, Any] = {
            "apiVersion": EVENT.api_version,
            "kind": EVENT.kind,
            "metadata": {"name": f"{key.name}.{uuid.uuid4().hex[:16]}", "namespace": key.namespace},
            "eventTime": micro_text_of(now),
            "reportingController": "wan22.dev/operator",
            "reportingInstance": self._identity,
            "action": "Reconcile",
            "reason": reason,
            "type": kind,
            "note": note[:NOTE_LIMIT],
            "regarding": {
                "apiVersion": resource.api_version,
                "kind": resource.kind,
                "namespace": key.namespace,
                "name": key.name,
                "uid": uid,
            },
        }
        try:
            await self._cluster.create(EVENT, key.namespace, manifest)
        except ApiFailure as failure:
            log.warning("An event of %s could not be written: %s", key, failure.message)
