"""Pulls what is to be kept, one version after the other, holds it, keeps the quota, and reads it again now and then."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime
from pathlib import Path

from wan22.cache import Cache
from wan22.digests import Sha256
from wan22.durable_files import to_its_end
from wan22.errors import Wan22Error
from wan22.model_client import ModelClient
from wan22.v1.cache_pb2 import CachedVersion
from wan22_registry.node_cache.kept_version import KeptVersion

log = logging.getLogger(__name__)
PIECE_BYTES = 1 << 20


class Keeper:
    """Makes the folder hold the versions of `kept`, by reference; callers add and remove by `keep` and `release`."""

    def __init__(self, cache: Cache, client: ModelClient, retry_seconds: float) -> None:
        self.kept: dict[str, KeptVersion] = {}
        self.damage_found = 0
        """Blobs that were found to have other bytes than they should."""
        self.verified_bytes = 0
        self._cache = cache
        self._client = client
        self._retry_seconds = retry_seconds
        self._changed = asyncio.Event()
        self._pulling: tuple[KeptVersion, asyncio.Task[None]] | None = None

    def keep(self, reference: str) -> KeptVersion:
        """Has a version pulled as soon as its turn comes."""
        kept = self.kept.setdefault(reference, KeptVersion(reference))
        self._changed.set()
        return kept

    def release(self, reference: str) -> None:
        """Lets a version be evicted, and stops its pull."""
        kept = self.kept.pop(reference, None)
        if kept is None:
            return
        kept.release()
        if self._pulling is not None and self._pulling[0] is kept:
            self._pulling[1].cancel()

    def close(self) -> None:
        """Gives every lock back."""
        for kept in self.kept.values():
            kept.release()

    async def run(self) -> None:
        """Pulls what is missing, at a change and again after a while; never returns."""
        while True:
            self._changed.clear()
            for kept in list(self.kept.values()):
                if kept.held is None and self.kept.get(kept.reference) is kept:
                    await self._pull_one(kept)
            await self._trim()
            try:
                async with asyncio.timeout(self._retry_seconds):
                    await self._changed.wait()
            except TimeoutError:
                pass

    async def _pull_one(self, kept: KeptVersion) -> None:
        """Pulls in a task of its own, which `release` can end alone."""
        task = asyncio.create_task(self._pull(kept))
        self._pulling = (kept, task)
        try:
            await asyncio.wait([task])
        finally:
            self._pulling = None
            if not task.done():  # the node cache stops
                task.cancel()
                await asyncio.wait([task])
        if not task.cancelled():
            task.result()

    async def _pull(self, kept: KeptVersion) -> None:
        def report(done: int, _: int) -> None:
            kept.done = done

        kept.state = CachedVersion.PULLING
        try:
            if kept.reference.startswith("models/"):
                version = await self._client.get_version(kept.reference)
            else:
                version = await self._client.resolve(kept.reference)
            kept.version, kept.size, kept.done = version.name, version.size_bytes, 0
            held = await self._cache.pull(version, self._client, report)
        except (Wan22Error, OSError) as error:
            kept.state, kept.reason = CachedVersion.FAILED, str(error)
            log.warning("%s is not kept: %s", kept.reference, error)
            return
        if self.kept.get(kept.reference) is not kept:  # released in the last moment
            held.close()
            return
        kept.held, kept.state, kept.reason = held, CachedVersion.PRESENT, ""
        kept.done, kept.verify_time = kept.size, datetime.now(UTC)
        log.info("%s is here, %d bytes: %s.", kept.reference, kept.size, kept.version)

    async def _trim(self) -> None:
        """Evicts what nobody uses and the quota leaves no room for: workers pull without asking."""
        try:
            await to_its_end(self._cache.trim)
        except OSError:
            log.exception("The cache folder could not be trimmed")

    async def verify_all(self, bytes_per_second: int) -> None:
        """Reads what is kept once, at that rate; a version that has changed is pulled again."""
        seen: dict[str, str] = {}
        for kept in list(self.kept.values()):
            held, whole = kept.held, True
            if held is None:
                continue
            for file in held.version.files:
                if file.digest not in seen:
                    seen[file.digest] = await self._digest(held.path(file.path), bytes_per_second)
                if kept.held is not held:  # released meanwhile: what is read may have been evicted
                    break
                if seen[file.digest] != file.digest:
                    text = "The cached copy of %s of %s has digest %s, not %s."
                    log.error(text, file.path, kept.version, seen[file.digest], file.digest)
                    self.damage_found += 1
                    whole = False
            if kept.held is not held:
                continue
            if whole:
                kept.verify_time = datetime.now(UTC)
            else:
                kept.release()
                kept.state = CachedVersion.PENDING
                self._changed.set()

    async def _digest(self, path: Path, bytes_per_second: int) -> str:
        actual = Sha256()
        try:
            with await asyncio.to_thread(path.open, "rb", buffering=0) as file:
                while data := await asyncio.to_thread(file.read, PIECE_BYTES):
                    await asyncio.to_thread(actual.update, data)
                    self.verified_bytes += len(data)
                    await asyncio.sleep(len(data) / bytes_per_second)
        except FileNotFoundError:
            return "of nothing"
        return str(actual)

    async def verify_for_ever(self, bytes_per_second: int, interval: float) -> None:
        """Reads everything again and again, with `interval` seconds between; never returns."""
        while True:
            await asyncio.sleep(interval)
            try:
                await self.verify_all(bytes_per_second)
            except OSError:
                log.exception("Re-reading what is kept has failed; it is tried again in %g s", interval)
