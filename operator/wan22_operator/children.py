"""Keeps a pool's Service, ServiceAccount and NetworkPolicy as they are wanted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from wan22_operator.cluster import ApiFailure, Cluster, Object
from wan22_operator.resources import Resource


async def keep(cluster: Cluster, wanted: list[tuple[Resource, Object]]) -> list[str]:
    """Applies those that are not as wanted; returns a sentence for each that was repaired. Raises ApiFailure.

    A field that another manager has taken is taken back: what the operator applies is its own. An object of the same
    name that belongs to somebody else is a conflict, and left alone.
    """
    repaired = []
    for resource, manifest in wanted:
        meta = manifest["metadata"]
        has = await cluster.find(resource, meta["namespace"], meta["name"])
        if has is not None and is_within(manifest, has):
            continue
        if has is not None and not _ours(has, manifest):
            text = f"{resource.kind} {meta['name']} belongs to somebody else: remove or rename it."
            raise ApiFailure(409, "NotOurs", text)
        try:
            await cluster.apply(resource, meta["namespace"], manifest)
        except ApiFailure as failure:
            if not failure.conflict:
                raise
            await cluster.apply(resource, meta["namespace"], manifest, force=True)
            repaired.append(f"{resource.kind} {meta['name']} was changed ({failure.message}): it is set back.")
        else:
            if has is not None:
                repaired.append(f"{resource.kind} {meta['name']} was not as it should be: it is set back.")
    return repaired


def is_within(wanted: Any, has: Any) -> bool:
    """Whether an object has all that is wanted; it may have more, such as defaults."""
    if isinstance(wanted, Mapping):
        return isinstance(has, Mapping) and all(is_within(value, has.get(name)) for name, value in wanted.items())
    if isinstance(wanted, list):
        return (
            isinstance(has, list)
            and len(wanted) == len(has)
            and all(is_within(one, other) for one, other in zip(wanted, has, strict=True))
        )
    return bool(wanted == has) or (wanted in (None, {}, []) and has is None)


def _ours(has: Object, wanted: Object) -> bool:
    owner = wanted["metadata"]["ownerReferences"][0]["uid"]
    return any(reference["uid"] == owner for reference in has["metadata"].get("ownerReferences", []))
