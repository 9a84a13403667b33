"""Makes videos with a model: its weights, its adapters, and the one thread that computes."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from wan22.economy import Economy
from wan22.errors import Unavailable, Wan22Error
from wan22.memory_model import Holdings
from wan22.parameters import Parameters
from wan22.recipe import Recipe
from wan22.variants import Variant
from wan22_inference.adapters import Adapters
from wan22_inference.compute import Compute
from wan22_inference.engine.checkpoint import Checkpoint, parse
from wan22_inference.engine.checkpoint_writer import CheckpointWriter
from wan22_inference.engine.generate import Rendered, Run, render
from wan22_inference.engine.lora.adapter import LoraAdapter
from wan22_inference.engine.model import Model
from wan22_inference.engine.preparation import Preparation
from wan22_inference.engine.preview import ShowPreview
from wan22_inference.engine.preview_writer import PreviewWriter
from wan22_inference.gpu_sensor import GpuSensor
from wan22_inference.inputs import Inputs
from wan22_inference.renderer import GpuReading, Hooks
from wan22_inference.weights import Weights


class ModelRenderer:
    """A Renderer on torch."""

    def __init__(
        self,
        weights: Weights,
        adapters: Adapters,
        compute: Compute,
        checkpoint_seconds: float,
        sensor: GpuSensor | None,
    ) -> None:
        """`sensor` is that of the device; None for a CPU."""
        self.weights = weights
        self.changed = weights.changed
        self._adapters = adapters
        self._compute = compute
        self._checkpoint_seconds = checkpoint_seconds
        self._sensor = sensor

    @property
    def version(self) -> str:
        """Format: models/{model}/versions/{digest}."""
        return self.weights.version

    @property
    def variant(self) -> Variant | None:
        """Of the model, once it can denoise."""
        return None if self.weights.model is None else self.weights.model.variant

    @property
    def numerics(self) -> Mapping[str, str]:
        """What may change bits beside a recipe."""
        return self.weights.numerics

    @property
    def holdings(self) -> Holdings | None:
        """What the model takes of the device."""
        return self.weights.holdings

    @property
    def bytes_loaded(self) -> int:
        """Bytes of weights in memory."""
        return self.weights.bytes_loaded

    @property
    def bytes_total(self) -> int:
        """Bytes of weights in all."""
        return self.weights.bytes_total

    @property
    def gpu(self) -> GpuReading | None:
        """The newest reading of the GPU's sensor."""
        return None if self._sensor is None else self._sensor.reading

    @property
    def error(self) -> Wan22Error | None:
        """Why the model could not be loaded."""
        return self.weights.error

    async def load(self) -> None:
        """Returns once the model is in memory."""
        if self._sensor is not None:
            self._sensor.start()
        await self.weights.load()

    async def prepare(self, parameters: Parameters, inputs: Inputs) -> ModelRendering:
        """The work of one attempt; only while there is a model."""
        model = self.weights.model
        if model is None:
            raise Unavailable("The model has just failed to load: try again.")
        adapters = await self._adapters.get(parameters.loras, model)
        return await asyncio.to_thread(self._make, model, parameters, inputs, adapters)

    def stop_loading(self) -> None:
        """Ends a load that is under way."""
        self.weights.close()

    async def close(self) -> None:
        """Waits for the computation."""
        if self._sensor is not None:
            self._sensor.stop()
        await self._compute.close()

    def _make(
        self, model: Model, parameters: Parameters, inputs: Inputs, adapters: Mapping[str, LoraAdapter]
    ) -> ModelRendering:
        """Hashes and parses megabytes: not for the event loop."""
        recipe = Recipe.make(model.variant.name, self.weights.version, parameters, self.weights.numerics)
        stored = inputs.checkpoint()
        return ModelRendering(
            Preparation(model, parameters, inputs.images()),
            recipe,
            self._compute,
            checkpoint_seconds=self._checkpoint_seconds,
            resume=None if stored is None else parse(stored.data, stored.step),
            economy=self.weights.economy.with_at_least(inputs.economy),
            adapters=adapters,
            preview_interval=inputs.preview_interval,
        )


class ModelRendering:
    """One attempt's work with a model."""

    def __init__(
        self,
        preparation: Preparation,
        recipe: Recipe,
        compute: Compute,
        *,
        checkpoint_seconds: float,
        resume: Checkpoint | None,
        economy: Economy,
        adapters: Mapping[str, LoraAdapter],
        preview_interval: int,
    ) -> None:
        self.parameters = preparation.parameters
        self.recipe = recipe
        self._preparation = preparation
        self._compute = compute
        self._checkpoint_seconds = checkpoint_seconds
        self._resume = resume
        self._economy = economy
        self._adapters = adapters
        self._preview_interval = preview_interval

    @property
    def failure(self) -> Unavailable | None:
        """Why what was still being loaded did not come."""
        return self._preparation.model.arrivals.failure

    def prepare_on_host(self) -> None:
        """Decodes images and draws the noise."""
        self._preparation.on_host()

    def prepare_on_device(self) -> None:
        """Encodes the texts."""
        self._preparation.on_device()

    async def render(self, path: Path, hooks: Hooks) -> Rendered:
        """Computes in the thread for it."""
        self._preparation.model.arrivals.on_failure(hooks.stop)
        return await self._compute.run(self._render, path, hooks)

    def _render(self, path: Path, hooks: Hooks) -> Rendered:
        model = self._preparation.model
        with (
            CheckpointWriter(model.device, self._checkpoint_seconds, hooks.deliver) as checkpoints,
            self._previews(hooks.show) as previews,
        ):
            run = Run(
                report=hooks.report,
                should_stop=hooks.should_stop,
                checkpoints=checkpoints,
                previews=previews,
                resume=self._resume,
                economy=self._economy,
                between_steps=hooks.between_steps,
                adapters=self._adapters,
            )
            told = self.recipe.without_texts() if self.parameters.omit_prompt else self.recipe
            return render(model, self._preparation, path, run, told)

    def _previews(self, show: ShowPreview) -> AbstractContextManager[PreviewWriter | None]:
        if not self._preview_interval:
            return nullcontext()
        seconds = self.parameters.num_frames / self.parameters.fps
        return PreviewWriter(self._preparation.model.device, self._preview_interval, seconds, show)
