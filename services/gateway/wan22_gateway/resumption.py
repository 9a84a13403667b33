"""The gateway's part of resuming: keeps the checkpoints that come from a worker, and finds the one to go on from."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

from wan22.errors import DataLoss, Reason, ResourceExhausted, Unavailable
from wan22.v1 import inference_pb2
from wan22_gateway import lifecycle
from wan22_gateway.lifecycle import Fence
from wan22_gateway.results import Results, checkpoint_key
from wan22_gateway.spool import Spool
from wan22_gateway.store import checkpoints, objects
from wan22_gateway.store.checkpoints import CheckpointRow
from wan22_gateway.store.database import Database, Transaction

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Start:
    """Where an attempt begins."""

    checkpoint: CheckpointRow | None
    """What it goes on from, if anything."""
    newest_step: int
    """Step of the newest checkpoint that is kept; 0 without one."""
    restart_reason: str = ""
    """Why it begins at step 0 although a checkpoint is kept."""

    @property
    def message(self) -> inference_pb2.Checkpoint | None:
        """The checkpoint as the worker is told of it."""
        row = self.checkpoint
        if row is None:
            return None
        return inference_pb2.Checkpoint(
            step=row.step, size_bytes=row.size_bytes, digest=row.digest, numerics_digest=row.numerics_digest
        )


class Resumption:
    """The checkpoints of one attempt."""

    def __init__(self, database: Database, results: Results, fence: Fence, spool: Path) -> None:
        self._database = database
        self._results = results
        self._fence = fence
        self._spool = Spool(spool)
        self._announced: inference_pb2.Checkpoint | None = None

    async def find(self, numerics_digest: str) -> Start:
        """Where to start on a worker of these numerics. A damaged checkpoint is given up, and why is recorded.

        One of other numerics is kept until the worker has started: it may refuse, and the next one be of equal ones.
        """
        for row in await self._database.read(checkpoints.newest, self._fence.generation):
            if row.numerics_digest != numerics_digest:
                return Start(None, 0, f"the checkpoint of step {row.step} was made by other numerics")
            try:
                if await self._results.size(row.key) == row.size_bytes:
                    return Start(row, row.step)
                await self.give_up(row.key, f"the checkpoint of step {row.step} is cut short")
            except DataLoss as error:
                await self.give_up(row.key, error.message)
        return Start(None, 0)

    async def known(self) -> Start:
        """For an attempt that runs already: nothing to start from, but what is kept need not come again."""
        rows = await self._database.read(checkpoints.newest, self._fence.generation)
        return Start(None, rows[0].step if rows else 0)

    async def give_up(self, key: str, reason: str) -> None:
        """Drops a checkpoint; the reason is told when the generation therefore starts at step 0."""
        log.warning("generations/%s: %s.", self._fence.generation, reason)

        def write(tx: Transaction) -> None:
            checkpoints.drop(tx, key)
            lifecycle.note_restart(tx, self._fence, reason)

        await self._database.write(write)

    async def read(self, row: CheckpointRow) -> AsyncIterator[inference_pb2.CheckpointChunk]:
        """A kept checkpoint's chunks. Raises DataLoss (DAMAGED_CHECKPOINT) when it is gone or cut short."""
        offset = 0
        try:
            async for data in self._results.read(row.key, row.size_bytes):
                yield inference_pb2.CheckpointChunk(step=row.step, offset=offset, data=data, crc32=crc32(data))
                offset += len(data)
        except DataLoss as error:
            raise DataLoss(error.message, reason=Reason.DAMAGED_CHECKPOINT) from error

    def announce(self, made: inference_pb2.Checkpoint) -> None:
        """Takes note of a checkpoint whose chunks follow."""
        self._spool.remove()
        self._announced = made

    async def take(self, chunk: inference_pb2.CheckpointChunk) -> None:
        """Gathers a chunk, and keeps the checkpoint once it is whole. Trouble costs this checkpoint and no more."""
        made = self._announced
        if made is None or made.step != chunk.step:
            return  # of one that was given up
        try:
            await self._spool.write(chunk)
            if self._spool.size >= made.size_bytes:
                await self._spool.check(made)
                await self._keep(made)
                self._forget()
        except (OSError, ResourceExhausted, Unavailable) as error:
            log.warning("generations/%s: no checkpoint of step %d: %s", self._fence.generation, made.step, error)
            self._forget()

    def _forget(self) -> None:
        self._announced = None
        self._spool.remove()

    async def _keep(self, made: inference_pb2.Checkpoint) -> None:
        fence = self._fence
        key = checkpoint_key(fence.generation, fence.attempt, fence.owner_epoch, made.step)
        await self._database.write(objects.begin, key)
        await self._results.put(key, self._spool.path)

        def write(tx: Transaction) -> None:
            if lifecycle.is_newest(tx, fence):
                checkpoints.add(tx, fence.generation, fence.attempt, key, made)
            else:
                objects.discard(tx, key)

        await self._database.write(write)

    def remove(self) -> None:
        """Deletes what has gathered."""
        self._spool.remove()
