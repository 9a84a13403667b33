"""The digest of what a change of which replaces workers: named inputs of the user alone, none of the operator's."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from wan22_operator.spec import PoolSpec

HASH_VERSION = "1"
"""Leads each revision. A worker is compared by its own version's rule alone: with a new one, old workers stay."""


def revision(spec: PoolSpec, image: str, model_version: str) -> str:
    """Of a worker of this pool, this image and this model version."""
    inputs: Mapping[str, Any] = {
        "model_version": model_version,
        "image": image,
        "gpus": spec.gpus,
        "vram_limit": spec.vram_limit,
        "resources": spec.resources,
        "cache": spec.cache,
        "scheduling": spec.scheduling,
        "drain_seconds": spec.drain_seconds,
    }
    given = {name: value for name, value in inputs.items() if value not in (None, {}, [])}
    digest = hashlib.sha256(json.dumps(given, sort_keys=True, default=str).encode()).hexdigest()
    return f"{HASH_VERSION}-{digest[:12]}"


def is_current(of_worker: str, wanted: str) -> bool:
    """Whether a worker may stay as it is; one of another rule's revision cannot be compared, and may."""
    return of_worker == wanted or of_worker.partition("-")[0] != wanted.partition("-")[0]
