"""The model version in memory, and the way there: registry -> cache folder -> device."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Mapping
from pathlib import Path

import torch

from wan22.cache import Cache, CachedVersion
from wan22.durable_files import to_its_end
from wan22.errors import DataLoss, DeadlineExceeded, FailedPrecondition, InternalError, Reason, Unavailable, Wan22Error
from wan22.memory_model import Holdings
from wan22.model_client import ModelClient
from wan22.names import VersionName
from wan22.pack.layout import PACKED_SUFFIX
from wan22.tls import Tls
from wan22.v1 import model_pb2
from wan22.variants import VARIANTS
from wan22_inference.compute import Compute
from wan22_inference.engine.loading.sources import SUFFIXES
from wan22_inference.engine.model import Model
from wan22_inference.engine.model_load import ModelLoad
from wan22_inference.engine.numerics import numerics
from wan22_inference.engine.options import EngineOptions
from wan22_inference.engine.progress import check_stop
from wan22_inference.signals import Signal

log = logging.getLogger(__name__)

FIRST_RETRY, LAST_RETRY = 1.0, 60.0
"""Seconds between tries to load; doubled from the first to the last, since each may pull gigabytes in vain."""


class Weights:
    """Pulls and loads one version, as often as it takes; tells how far it is."""

    def __init__(
        self,
        reference: str,
        *,
        registry: str,
        cache: Cache,
        device: torch.device,
        compute: Compute,
        options: EngineOptions,
        tls: Tls | None = None,
    ) -> None:
        self._reference = reference
        self._registry = registry
        self._tls = tls
        self._cache = cache
        self._device = device
        self._compute = compute
        self._options = options
        self.model: Model | None = None
        self.version = reference if reference.startswith("models/") else ""
        """Format: models/{model}/versions/{digest}; empty until the registry has resolved the reference."""
        self.numerics: Mapping[str, str] = {}
        """What may change bits beside a recipe, by name; empty until the model is loaded."""
        self.holdings: Holdings | None = None
        """What the model takes of the device; None until it is loaded, and where nothing bounds the memory."""
        self.economy = options.economy
        """What every generation does to need less memory."""
        self.bytes_loaded = 0
        self.bytes_total = 0
        """0 until the version's files are known."""
        self.error: Wan22Error | None = None
        """Why the model could not be loaded, until it could."""
        self.changed = Signal()
        """Notified when `model` or `error` changes, and when all is loaded."""
        self._stop = threading.Event()
        self._verifies_packs = True
        self._cached: CachedVersion | None = None

    async def load(self) -> None:
        """Returns once the model is in memory; it is to be used before, as soon as it can denoise.

        A registry that cannot be reached is waited for; other errors show.
        """
        delay = FIRST_RETRY
        while True:
            try:
                await self._try()
            except (Unavailable, DeadlineExceeded) as error:
                log.warning("The registry at %s is not to be reached (%s).", self._registry, error.message)
                delay = FIRST_RETRY  # the client has waited itself, and another try costs nothing
            except Wan22Error as error:
                self.error = error
            except Exception as error:
                log.exception("Loading failed by a fault of ours")
                self.error = InternalError(f"The model could not be loaded ({type(error).__name__}: {error}).")
            else:
                log.info("%s is in memory, on %s.", self.version, self._device)
                self.changed.notify()
                return
            self.model = None  # it may have run already
            if self.error is not None:
                log.error("%s is not loaded: %s", self._reference, self.error.message)
            self.changed.notify()
            log.info("Trying again in %g s.", delay)
            await asyncio.sleep(delay)
            delay = min(delay * 2, LAST_RETRY)

    def close(self) -> None:
        """Ends a load that is under way, and gives the cached files free."""
        self._stop.set()
        if self._cached is not None:
            self._cached.close()

    async def _try(self) -> None:
        async with ModelClient(self._registry, self._tls) as client:
            version = await self._find(client)
            self.version = version.name
            self.bytes_total = sum(f.size_bytes for f in version.files if f.path.endswith(SUFFIXES))
            if version.variant not in VARIANTS:
                raise FailedPrecondition(
                    f"{version.name} is of the variant {version.variant!r}, which this worker does not know: use one "
                    f"of {', '.join(VARIANTS)}.",
                    reason=Reason.MODEL_MISFIT,
                )
            cached = await self._cache.pull(version, client, verified_later=self._verifies)
        await self._compute.run(lambda: None)  # what a model that failed was used for has let go of its memory then
        try:
            await to_its_end(self._load, version.variant, cached.files, asyncio.get_running_loop())
        except BaseException as error:
            self._verifies_packs = not isinstance(error, DataLoss)
            cached.close()
            raise
        self._cached = cached  # held for a quick restart: its files are not evicted while a worker runs them

    def _verifies(self, file: model_pb2.File) -> bool:
        """Packs are verified as they are loaded; but after a damaged one all are before, which replaces it."""
        return self._verifies_packs and file.path.endswith(PACKED_SUFFIX)

    async def _find(self, client: ModelClient) -> model_pb2.Version:
        if self._reference.startswith("models/"):
            return await client.get_version(str(VersionName.parse(self._reference)))
        return await client.resolve(self._reference)

    def _load(self, variant: str, paths: Mapping[str, Path], loop: asyncio.AbstractEventLoop) -> None:
        """Runs in a thread of its own; a plain number is read by the loop as it grows."""
        self.bytes_loaded = 0

        def on_bytes(count: int) -> None:
            check_stop(self._stop.is_set)
            self.bytes_loaded += count

        with ModelLoad(VARIANTS[variant], paths, self._device, on_bytes, self._options) as load:
            model = load.begin()
            loop.call_soon_threadsafe(self._take, model, numerics(model, self._options), model.placement.holdings())
            load.finish()

    def _take(self, model: Model, entries: Mapping[str, str], holdings: Holdings | None) -> None:
        self.model, self.numerics, self.holdings, self.error = model, entries, holdings, None
        log.info("%s can run on %s.", self.version, self._device)
        self.changed.notify()
