"""A Renderer that computes nothing: it loads for a while, and then renders in the time that the cost model tells."""

from __future__ import annotations

import asyncio
import importlib.metadata
import logging
import time
from collections.abc import Mapping

from wan22.errors import DeadlineExceeded, FailedPrecondition, Reason, Unavailable, Wan22Error
from wan22.memory_model import Holdings
from wan22.model_client import ModelClient
from wan22.names import VersionName
from wan22.parameters import Parameters
from wan22.recipe import Recipe
from wan22.variants import VARIANTS, Variant
from wan22_inference.engine.options import EngineOptions
from wan22_inference.inputs import Inputs
from wan22_inference.renderer import GpuReading
from wan22_inference.signals import Signal
from wan22_testing.simulated_worker.rendering import SimulatedRendering
from wan22_testing.simulated_worker.settings import SimulatedWorkerSettings

log = logging.getLogger(__name__)

ENGINE_VERSION = "simulated 1"
"""Raised whenever the same recipe gives another video."""
RETRY_SECONDS = 1.0
"""Between tries to ask the registry."""
LOADING_PORTIONS = 20
"""Bytes arrive in so many."""


class SimulatedRenderer:
    """Holds nothing, and says that it holds one model version."""

    def __init__(self, settings: SimulatedWorkerSettings) -> None:
        self._settings = settings
        self.changed = Signal()
        self.version = settings.model if settings.model.startswith("models/") else ""
        """Format: models/{model}/versions/{digest}; empty until the registry has resolved the reference."""
        self.variant: Variant | None = None
        """Once it is loaded."""
        self.numerics: Mapping[str, str] = {}
        """What may change bits beside a recipe, by name; empty until it is loaded."""
        self.holdings: Holdings | None = None
        """None: nothing bounds its memory."""
        self.bytes_loaded = 0
        self.bytes_total = 0
        """0 until known."""
        self.error: Wan22Error | None = None
        """Why it cannot be loaded."""

    @property
    def gpu(self) -> GpuReading | None:
        """What the settings say, read just now."""
        utilization = self._settings.gpu_utilization
        return None if utilization is None else GpuReading(utilization, time.monotonic())

    async def load(self) -> None:
        """Returns once the time for it is over. What the registry refuses shows as `error`, and is asked for again."""
        while (variant := await self._find()) is None:
            self.changed.notify()
            await asyncio.sleep(RETRY_SECONDS)
        for portion in range(1, LOADING_PORTIONS + 1):
            if self._settings.load_seconds > 0:
                await asyncio.sleep(self._settings.load_seconds / LOADING_PORTIONS)
            self.bytes_loaded = self.bytes_total * portion // LOADING_PORTIONS
        self.variant, self.numerics, self.error = variant, self._numerics(), None
        log.info("%s is simulated, as %s.", self.version, variant.name)
        self.changed.notify()

    async def prepare(self, parameters: Parameters, inputs: Inputs) -> SimulatedRendering:
        """The work of one attempt. Raises InvalidRequest and DataLoss for inputs that are not what was announced."""
        if self.variant is None:
            raise Unavailable("The worker is not loaded: try again.")
        recipe = Recipe.make(self.variant.name, self.version, parameters, self.numerics)
        resume = inputs.checkpoint()
        inputs.images()
        return SimulatedRendering(
            self.variant,
            parameters,
            recipe,
            resume,
            time_scale=self._settings.time_scale,
            step_seconds=self._settings.step_seconds,
            checkpoint_seconds=self._settings.checkpoint_seconds,
            economy=inputs.economy,
            preview_interval=inputs.preview_interval,
        )

    def stop_loading(self) -> None:
        """Nothing needs an end but the task."""

    async def close(self) -> None:
        """Nothing runs that is waited for."""

    async def _find(self) -> Variant | None:
        name = self._settings.variant
        try:
            if not (name and self.version):
                name = await self._ask()
            else:
                self.bytes_total = self._settings.model_bytes
            if name not in VARIANTS:
                raise FailedPrecondition(
                    f"The variant is {name!r}: use one of {', '.join(VARIANTS)}.", reason=Reason.MODEL_MISFIT
                )
        except (Unavailable, DeadlineExceeded) as error:
            log.warning("The registry at %s is not to be reached (%s).", self._settings.registry, error.message)
        except Wan22Error as error:
            log.error("%s is not loaded: %s", self._settings.model, error.message)  # noqa: TRY400  # it says it all
            self.error = error
        else:
            return VARIANTS[name]
        return None

    async def _ask(self) -> str:
        """The variant by the registry, which also tells the version and its bytes."""
        reference = self._settings.model
        async with ModelClient(self._settings.registry, self._settings.tls) as client:
            if reference.startswith("models/"):
                version = await client.get_version(str(VersionName.parse(reference)))
            else:
                version = await client.resolve(reference)
        self.version = version.name
        self.bytes_total = sum(file.size_bytes for file in version.files)
        return version.variant

    def _numerics(self) -> dict[str, str]:
        options = EngineOptions(
            threads=self._settings.threads,
            text_encoder=self._settings.text_encoder,
            vae_decode_dtype=self._settings.vae_decode_dtype,
        )
        entries = {f"option {name}": value for name, value in options.bits().items()}
        return {"engine": ENGINE_VERSION, "library av": importlib.metadata.version("av")} | entries
