"""Re-reads everything that is stored, slowly, so that damage is known before somebody needs the bytes."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field

from wan22.digests import Sha256
from wan22.errors import DataLoss
from wan22.v1 import model_pb2
from wan22_registry.blobs import BlobStore
from wan22_registry.index import Entry
from wan22_registry.metrics import RegistryMetrics
from wan22_registry.versions import Versions

log = logging.getLogger(__name__)
FIRST_SECONDS = 600.0
"""A registry that starts has other things to do."""
PIECE_BYTES = 1 << 20


@dataclass
class Pass:
    """What one reading of everything has found."""

    bytes_read: int = 0
    damaged: list[str] = field(default_factory=list)
    """Digests of blobs that have other bytes, or are gone, and of manifests that do."""


class Scrubber:
    """Reads the versions of a layout at a bounded rate, each blob once a pass."""

    def __init__(self, blobs: BlobStore, versions: Versions, bytes_per_second: int, metrics: RegistryMetrics) -> None:
        self._blobs = blobs
        self._versions = versions
        self._bytes_per_second = bytes_per_second
        self._metrics = metrics

    async def run(self, interval: float) -> None:
        """One pass after another, with `interval` seconds between; never returns."""
        await asyncio.sleep(FIRST_SECONDS)
        while True:
            try:
                await self.read_all()
            except OSError:
                log.exception("Re-reading what is stored has failed; it is tried again in %g s", interval)
            await asyncio.sleep(interval)

    async def read_all(self) -> Pass:
        """Reads every version; what is damaged is logged, and counts as missing until it is pushed again."""
        found, seen = Pass(), set[str]()
        for entry in self._versions.list_all():
            for file in await self._files(entry, found):
                if file.digest not in seen:
                    seen.add(file.digest)
                    await self._read(entry, file, found)
        text = "Re-read %d blobs, %d bytes: %d damaged."
        log.info(text, len(seen), found.bytes_read, len(found.damaged))
        return found

    async def _files(self, entry: Entry, found: Pass) -> list[model_pb2.File]:
        try:
            return list((await asyncio.to_thread(self._versions.message, entry)).files)
        except DataLoss as error:
            log.error("%s", error.message)  # noqa: TRY400  # the place in the code says nothing
            found.damaged.append(entry.digest)
            return []

    async def _read(self, entry: Entry, file: model_pb2.File, found: Pass) -> None:
        with self._blobs.use(file.digest):
            try:
                actual = await self._digest(file.digest, found)
            except FileNotFoundError:
                actual = "gone"
            if actual != file.digest and self._versions.has(entry):  # not deleted meanwhile
                log.error("%s of %s is damaged: %s. Import the model again.", file.path, entry.name, actual)
                found.damaged.append(file.digest)
                self._blobs.set_damaged(file.digest, damaged=True)

    async def _digest(self, digest: str, found: Pass) -> str:
        actual = Sha256()
        with await asyncio.to_thread(self._blobs.path(digest).open, "rb", buffering=0) as file:
            while data := await asyncio.to_thread(file.read, PIECE_BYTES):
                await asyncio.to_thread(actual.update, data)
                found.bytes_read += len(data)
                self._metrics.reread_bytes.inc(len(data))
                await asyncio.sleep(len(data) / self._bytes_per_second)
        return str(actual)
