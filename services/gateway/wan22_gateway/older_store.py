"""A worker that has seen a newer owner than the store knows of: the store is an earlier one, put back from a backup.

What the lost one wrote cannot be known; it is enough to go beyond what the worker remembers of it.
"""

from __future__ import annotations

from sqlalchemy import update

from wan22.errors import Wan22Error
from wan22_gateway import outcome
from wan22_gateway.lifecycle import Fence, State
from wan22_gateway.store.claims import Claim, Loss
from wan22_gateway.store.database import Transaction
from wan22_gateway.store.schema import generations

MAX_NUMBER, MAX_EPOCH = (1 << 31) - 2, (1 << 63) - 2
"""Beyond which a fence of the protocol's widths could not be raised."""


def newest_seen(error: Wan22Error, stale: Fence) -> Fence:
    """The newest fence that a worker has seen, as its refusal (STALE_OWNER) of a stale one tells.

    A worker of release 0.1.0 does not tell: then the next attempt's, so that each refusal leads one further.
    """
    number, epoch = (error.metadata.get(name, "") for name in ("number", "owner_epoch"))
    if not (number.isdecimal() and epoch.isdecimal() and len(number) < 11 and len(epoch) < 20):
        return Fence(stale.generation, stale.attempt + 1, stale.owner_epoch)
    return Fence(stale.generation, min(int(number), MAX_NUMBER), min(int(epoch), MAX_EPOCH))


def go_beyond(tx: Transaction, claim: Claim, seen: Fence) -> bool:
    """Lets a generation go on under a fence that is newer than what a worker has seen.

    The same attempt under a later owner goes on, after a takeover that is due at once; beside a later attempt it is
    lost, and the next one has a higher number. False where there is nothing to do: the claim's fence is not the store's
    newest, so that the newer owner is known, or the worker has seen nothing newer.
    """
    row, mine = outcome.row_of(tx, claim.fence), claim.fence
    if row is None or (seen.attempt, seen.owner_epoch) <= (mine.attempt, mine.owner_epoch):
        return False
    if row.state == State.RUNNING and seen.attempt == mine.attempt:
        due = {"owner_epoch": seen.owner_epoch, "lease_expire_time": tx.now}
        tx.execute(update(generations).where(mine.condition).values(due))
        return True
    outcome.lost(tx, claim, Loss(f"{claim.worker} has seen a later attempt than the store knew of", died=False))
    beyond = {"attempt_count": seen.attempt, "owner_epoch": max(seen.owner_epoch, mine.owner_epoch)}
    tx.execute(update(generations).where(generations.c.id == row.id).values(beyond))
    return True
