"""The real worker and the simulated one: whatever is said of workers is tested of both."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from wan22.parameters import Parameters
from wan22.recipe import Recipe
from wan22.variants import VARIANTS
from wan22_inference.engine.generate import Run, generate
from wan22_inference.engine.model_load import load_model
from wan22_inference.worker_server import Service, serve_worker
from wan22_testing.service_process import ServiceProcess
from wan22_testing.simulated_worker.renderer import SimulatedRenderer
from wan22_testing.simulated_worker.rendering import write_undisturbed
from wan22_testing.simulated_worker.settings import SimulatedWorkerSettings
from wan22_testing.tiny_models import shared_folder

from .calls import Caller, calling, serving

if TYPE_CHECKING:
    from .conftest import Registry

POOL = "pools/test.pool"


class WorkerKind(ABC):
    """One kind of worker: how it is served here or as a process, and what it makes of a recipe."""

    module: str

    def __init__(self, registry: Registry) -> None:
        self.registry = registry

    @abstractmethod
    def variant(self, family: str) -> str:
        """The variant of t2v-a14b, i2v-a14b or ti2v-5b that makes a short video within a fraction of a second."""

    @abstractmethod
    async def version(self, family: str) -> str:
        """The name of its model version."""

    @abstractmethod
    def serving(
        self, folder: Path, version: str, family: str, **changed: Any
    ) -> AbstractAsyncContextManager[tuple[Service, Caller]]:
        """A worker in this process, loading, and somebody who calls it."""

    @abstractmethod
    def render(self, chosen: Parameters, recipe: Recipe, path: Path) -> bytes:
        """The video without any worker."""

    @asynccontextmanager
    async def ready(
        self, folder: Path, family: str = "t2v-a14b", **changed: Any
    ) -> AsyncIterator[tuple[Service, Caller]]:
        """As serving, once it is ready."""
        async with self.serving(folder, await self.version(family), family, **changed) as (service, caller):
            while not service.worker.ready:
                await service.worker.changed.wait()
            yield service, caller

    def flags(self, family: str) -> dict[str, Any]:
        """Of its process, beside those that all have."""
        return {}

    @asynccontextmanager
    async def process(
        self, folder: Path, family: str = "t2v-a14b", **flags: Any
    ) -> AsyncIterator[tuple[ServiceProcess, Caller]]:
        """A ready worker as a process of its own, and somebody who calls it."""
        version = await self.version(family)
        started = ServiceProcess(
            self.module,
            folder / "worker.log",
            name="workers/one",
            uid="slot-1",
            pool=POOL,
            registry=self.registry.address,
            model=version,
            cache=folder / "cache",
            scratch=folder / "scratch",
            device="cpu",
            **{**self.flags(family), **flags},
        )
        started.start()
        try:
            await started.until()
            async with calling(started.address, version) as caller:
                yield started, caller
        finally:
            if started.running:
                started.kill()


class RealWorker(WorkerKind):
    """The worker with tiny weights on the CPU."""

    module = "wan22_inference"

    def variant(self, family: str) -> str:
        return f"{family}-tiny"

    async def version(self, family: str) -> str:
        return await self.registry.version(self.variant(family))

    def serving(
        self, folder: Path, version: str, family: str, **changed: Any
    ) -> AbstractAsyncContextManager[tuple[Service, Caller]]:
        return serving(folder, self.registry.address, version, **changed)

    def render(self, chosen: Parameters, recipe: Recipe, path: Path) -> bytes:
        folder = shared_folder(recipe.variant)
        paths = {str(file.relative_to(folder)): file for file in folder.rglob("*") if file.is_file()}
        model = load_model(VARIANTS[recipe.variant], paths, torch.device("cpu"), lambda _: None)
        run = Run(report=lambda _: None, should_stop=lambda: False)
        generate(model, chosen, {}, path, run, recipe)
        return path.read_bytes()


class SimulatedWorker(WorkerKind):
    """The worker without an engine, as one of a full size in a third of the time."""

    module = "wan22_testing.simulated_worker"

    def variant(self, family: str) -> str:
        return family

    async def version(self, family: str) -> str:
        return f"models/wan2.2-{family}/versions/sha256:{'5' * 64}"

    def flags(self, family: str) -> dict[str, Any]:
        return {"variant": self.variant(family), "time_scale": 0.3}

    @asynccontextmanager
    async def serving(
        self, folder: Path, version: str, family: str, **changed: Any
    ) -> AsyncIterator[tuple[Service, Caller]]:
        given: dict[str, Any] = {"scratch": folder / "scratch", "name": "workers/one", **self.flags(family), **changed}
        settings = SimulatedWorkerSettings(port=0, health_port=0, pool=POOL, model=version, **given)
        async with (
            serve_worker(settings, SimulatedRenderer(settings)) as service,
            calling(f"127.0.0.1:{service.server.port}", version) as caller,
        ):
            yield service, caller

    def render(self, chosen: Parameters, recipe: Recipe, path: Path) -> bytes:
        write_undisturbed(recipe, path)
        return path.read_bytes()
