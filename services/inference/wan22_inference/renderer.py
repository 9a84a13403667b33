"""What a worker needs of whatever makes its videos; the rest of the worker knows nothing else of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from wan22.economy import Economy
from wan22.errors import Unavailable, Wan22Error
from wan22.memory_model import Holdings
from wan22.parameters import Parameters
from wan22.recipe import Recipe
from wan22.variants import Variant
from wan22_inference.engine.preview import ShowPreview
from wan22_inference.engine.progress import Report, ShouldStop
from wan22_inference.inputs import Inputs
from wan22_inference.signals import Signal


@dataclass(frozen=True)
class GpuReading:
    """What a GPU's sensor said."""

    utilization: float
    """In [0, 1]: part of the last second, or less, in which anything was computed."""
    time: float
    """When, by the monotonic clock."""


class Rendered(Protocol):
    """A video that is computed, and being written."""

    @property
    def economy(self) -> Economy:
        """What took effect to need less memory."""

    def wait(self) -> None:
        """Returns when the file is whole. Raises what the encoder or the disk raised."""


@dataclass(frozen=True, kw_only=True)
class Hooks:
    """Who hears of a rendering, and who may stop it."""

    report: Report
    """Takes progress, in any thread."""
    deliver: Callable[[int, bytes], None]
    """Takes a checkpoint: its step and its file. Writes to disk: not to be called on the event loop."""
    show: ShowPreview
    """Takes a preview, in any thread."""
    stop: Callable[[], None]
    """Asks the work to end; for a rendering that finds its own worker failing."""
    should_stop: ShouldStop
    between_steps: Callable[[], None]
    """Called between steps: short work for another rendering, of no effect on this one."""


class Rendering(Protocol):
    """The work of one attempt."""

    @property
    def parameters(self) -> Parameters:
        """What is made."""

    @property
    def recipe(self) -> Recipe:
        """Complete, but for the economy that takes effect."""

    @property
    def failure(self) -> Unavailable | None:
        """Why the worker has failed under it, if it has: elsewhere the same may succeed."""

    def prepare_on_host(self) -> None:
        """Does ahead of its turn what needs no device. Called in a thread; may raise what `render` would raise."""

    def prepare_on_device(self) -> None:
        """Does ahead of its turn what takes the device for a moment. Called between steps of another rendering."""

    async def render(self, path: Path, hooks: Hooks) -> Rendered:
        """Makes the video, and returns when the device is free. Raises Cancelled soon after `should_stop`."""


class Renderer(Protocol):
    """Holds one model version, and makes videos with it one after the other."""

    changed: Signal
    """Notified when `variant` or `error` changes, and when all is loaded."""

    @property
    def version(self) -> str:
        """Format: models/{model}/versions/{digest}; empty until the reference is resolved."""

    @property
    def variant(self) -> Variant | None:
        """Of the model version, once videos can be made with it."""

    @property
    def numerics(self) -> Mapping[str, str]:
        """What may change bits beside a recipe, by name; empty until the model is loaded."""

    @property
    def holdings(self) -> Holdings | None:
        """What the model takes of the device; None until it is loaded, and where nothing bounds the memory."""

    @property
    def bytes_loaded(self) -> int:
        """Bytes of weights in memory."""

    @property
    def bytes_total(self) -> int:
        """Bytes of weights in all; 0 until known."""

    @property
    def gpu(self) -> GpuReading | None:
        """The newest reading of the GPU's sensor; None where there is none."""

    @property
    def error(self) -> Wan22Error | None:
        """Why the model could not be loaded, until it could."""

    async def load(self) -> None:
        """Returns once the model is in memory; `variant` is there before, as soon as it can denoise."""

    async def prepare(self, parameters: Parameters, inputs: Inputs) -> Rendering:
        """The work of one attempt; only once there is a variant.

        Raises InvalidRequest and DataLoss for inputs that are not what the parameters say, DataLoss for a checkpoint
        that cannot be read, and what fetching adapters raises.
        """

    def stop_loading(self) -> None:
        """Ends a load that is under way, and gives files free."""

    async def close(self) -> None:
        """Waits for what runs."""
