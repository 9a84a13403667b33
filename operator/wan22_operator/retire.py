"""The one path by which a worker leaves: fenced at the gateway, found without work, deleted as it was seen."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence

from wan22.errors import FailedPrecondition, NotFound, Wan22Error
from wan22_operator.builders.pod import worker_name
from wan22_operator.cluster import ApiFailure, Cluster
from wan22_operator.gateway import Gateway
from wan22_operator.names import PoolKey
from wan22_operator.record import State
from wan22_operator.resources import POD
from wan22_operator.workers import Seen

log = logging.getLogger(__name__)


async def retire(
    key: PoolKey, leaving: Sequence[Seen], patient: Collection[str], cluster: Cluster, gateway: Gateway
) -> list[str]:
    """Takes each a step further; returns the names of those whose pods were deleted. Raises ApiFailure.

    Those in `patient` are fenced while they still have a generation, and deleted once it has ended.
    """
    deleted = []
    for seen in leaving:
        if seen.pod is None or seen.deleted:
            continue
        if seen.state is not State.LOST and not await _is_free(key, seen, gateway, patient=seen.name in patient):
            continue
        meta = seen.pod["metadata"]
        try:
            await cluster.delete(POD, key.namespace, seen.name, uid=meta["uid"], version=meta["resourceVersion"])
        except ApiFailure as failure:
            if not failure.missing and not failure.conflict:
                raise
            log.info("%s/%s is not what it was: %s", key.namespace, seen.name, failure.message)  # the next round looks
        else:
            deleted.append(seen.name)
    return deleted


async def _is_free(key: PoolKey, seen: Seen, gateway: Gateway, *, patient: bool) -> bool:
    """Whether the gateway has acknowledged that the worker gets nothing and has nothing."""
    name = worker_name(key, seen.name)
    try:
        worker = await gateway.drain(name, claimed=patient)
    except NotFound:
        return True  # the gateway has never heard of it
    except FailedPrecondition as error:
        log.info("%s stays for now: %s", name, error.message)
        return False
    except Wan22Error as error:
        log.info("%s cannot be fenced: %s", name, error.message)
        return False
    return not worker.generation and not worker.prepared
