"""LoRA adapters of the registry in host memory, those used last."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Mapping, Sequence

from wan22.adapter import ADAPTER_FILE, WEIGHTS_FILE, Adapter
from wan22.cache import Cache, CachedVersion
from wan22.errors import FailedPrecondition, Reason
from wan22.loras import Lora
from wan22.model_client import ModelClient
from wan22.tls import Tls
from wan22_inference.engine.lora.adapter import LoraAdapter, read_adapter
from wan22_inference.engine.lora.targets import targets_of
from wan22_inference.engine.model import Model

log = logging.getLogger(__name__)


class Adapters:
    """Pulls adapters through the cache folder and keeps them, up to a number of bytes; one model a process."""

    def __init__(self, registry: str, cache: Cache, max_bytes: int, tls: Tls | None = None) -> None:
        self._registry = registry
        self._tls = tls
        self._cache = cache
        self._max_bytes = max_bytes
        self._kept: OrderedDict[str, LoraAdapter] = OrderedDict()
        self._lock = asyncio.Lock()

    async def get(self, loras: Sequence[Lora], model: Model) -> Mapping[str, LoraAdapter]:
        """Each adapter by its name.

        Raises NotFound for one that the registry does not have, FailedPrecondition (ADAPTER_MISFIT) for what does not
        fit the model, Unavailable while the registry is not to be reached, and what Cache.pull raises.
        """
        names = list(dict.fromkeys(lora.adapter for lora in loras))
        async with self._lock:
            found = {name: self._kept[name] for name in names if name in self._kept}
            for name in names:
                if name not in found:
                    found[name] = await self._pull(name, model)
            self._keep(found)
        return found

    async def _pull(self, name: str, model: Model) -> LoraAdapter:
        async with ModelClient(self._registry, self._tls) as client:
            version = await client.get_version(name)
            if not version.HasField("adapter") or version.variant != model.variant.name:
                kind = "an adapter" if version.HasField("adapter") else "no adapter, but a whole model"
                text = f"{name} is {kind} of {version.variant}: an adapter of {model.variant.name} is needed."
                raise FailedPrecondition(text, reason=Reason.ADAPTER_MISFIT)
            cached = await self._cache.pull(version, client)
        try:
            adapter = await asyncio.to_thread(_read, cached, model)
        finally:
            cached.close()
        log.info("%s is in memory, %d bytes.", name, adapter.bytes)
        return adapter

    def _keep(self, used: Mapping[str, LoraAdapter]) -> None:
        for name, adapter in used.items():
            self._kept[name] = adapter
            self._kept.move_to_end(name)
        while sum(adapter.bytes for adapter in self._kept.values()) > self._max_bytes:
            self._kept.popitem(last=False)


def _read(cached: CachedVersion, model: Model) -> LoraAdapter:
    facts = Adapter.from_json(cached.path(ADAPTER_FILE).read_bytes())
    targets = targets_of(model.transformers[0])
    return read_adapter(cached.path(WEIGHTS_FILE), targets, model.variant.experts, facts.alpha)
