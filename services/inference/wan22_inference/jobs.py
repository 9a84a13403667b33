"""The work of one attempt, and what it has come to."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from wan22.digests import Sha256
from wan22.errors import Cancelled, InternalError, Unavailable, Wan22Error
from wan22.recipe import Recipe
from wan22_inference.engine.preview import Preview
from wan22_inference.engine.progress import Progress, check_stop
from wan22_inference.renderer import Hooks, Rendered, Rendering
from wan22_inference.signals import Signal

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Finished:
    """There is a video."""

    path: Path
    size_bytes: int
    digest: str
    compute_seconds: float
    recipe: Recipe


@dataclass(frozen=True)
class Failed:
    """The attempt failed, and would fail again."""

    error: Wan22Error


@dataclass(frozen=True)
class Stopped:
    """The attempt was stopped on request."""


@dataclass(frozen=True)
class StoredCheckpoint:
    """A checkpoint on disk."""

    step: int
    path: Path
    size_bytes: int
    digest: str


@dataclass(frozen=True)
class Lost:
    """The worker has failed, not the attempt: elsewhere it may succeed."""

    error: Unavailable


Outcome = Finished | Failed | Stopped | Lost


class Job:
    """One attempt's work: progress so far, and in the end its outcome. Lives on the event loop."""

    def __init__(self, rendering: Rendering, folder: Path) -> None:
        self.parameters = rendering.parameters
        self.folder = folder
        self.progress: list[Progress] = []
        self.checkpoint: StoredCheckpoint | None = None
        """The newest."""
        self.preview: Preview | None = None
        """The newest."""
        self.outcome: Outcome | None = None
        self.changed = Signal()
        """Notified at progress, a preview, a checkpoint, the outcome, and when the owner may have changed."""
        self._rendering: Rendering | None = rendering
        self._stop = threading.Event()

    def stop(self) -> None:
        """Asks the work to end at its next step."""
        self._stop.set()

    def prepare_on_host(self) -> None:
        """Does, before its turn, what needs no device. What fails is told when its turn comes."""
        self._prepare(lambda rendering: rendering.prepare_on_host())

    def prepare_on_device(self) -> None:
        """Does what takes the device for a moment; called between steps of another attempt."""
        self._prepare(lambda rendering: rendering.prepare_on_device())

    def _prepare(self, what: Callable[[Rendering], None]) -> None:
        rendering = self._rendering
        if rendering is None:
            return
        try:
            what(rendering)
        except (Wan22Error, RuntimeError) as error:  # torch's errors are RuntimeErrors, want of memory too
            log.info("What could be prepared ahead was not: %s", error)

    async def run(self, between_steps: Callable[[], None], leave_device: Callable[[], None]) -> None:
        """Does the work; whatever happens becomes the outcome.

        `between_steps` is called where the rendering computes, `leave_device` when what is left is to write the video.
        """
        if self._rendering is None:
            raise RuntimeError("a job runs once")
        rendering = self._rendering
        loop = asyncio.get_running_loop()

        def report(progress: Progress) -> None:
            loop.call_soon_threadsafe(self._report, progress)

        def deliver(step: int, data: bytes) -> None:
            stored = _store(self.folder, step, data)
            loop.call_soon_threadsafe(self._checkpointed, stored)

        def show(preview: Preview) -> None:
            loop.call_soon_threadsafe(self._previewed, preview)

        hooks = Hooks(
            report=report,
            deliver=deliver,
            show=show,
            stop=self.stop,
            should_stop=self._stop.is_set,
            between_steps=between_steps,
        )
        outcome: Outcome
        try:
            started = time.monotonic()
            path = self.folder / "video.mp4"
            rendered = await rendering.render(path, hooks)
            seconds = time.monotonic() - started
            leave_device()
            outcome = await asyncio.to_thread(self._finish, rendering, rendered, path, seconds)
        except Cancelled:
            outcome = Stopped()
        except Wan22Error as error:
            outcome = Failed(error)
        except Exception as error:
            log.exception("An attempt failed by a fault of ours")
            outcome = Failed(
                InternalError(f"The engine failed by a fault of its own ({type(error).__name__}: {error}).")
            )
        if rendering.failure is not None and not isinstance(outcome, Finished):
            outcome = Lost(rendering.failure)
        self.outcome = outcome
        self._rendering = None  # its images and the checkpoint it began with are not needed any more
        self.changed.notify()

    def _report(self, progress: Progress) -> None:
        self.progress.append(progress)
        self.changed.notify()

    def _previewed(self, preview: Preview) -> None:
        self.preview = preview
        self.changed.notify()

    def _checkpointed(self, stored: StoredCheckpoint) -> None:
        if self.checkpoint is not None:
            self.checkpoint.path.unlink(missing_ok=True)  # a stream that reads it has it open
        self.checkpoint = stored
        self.changed.notify()

    def _finish(self, rendering: Rendering, rendered: Rendered, path: Path, compute_seconds: float) -> Finished:
        """Waits for the file and hashes it, beside the next attempt's computation."""
        rendered.wait()
        check_stop(self._stop.is_set)
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        recipe = rendering.recipe.with_economy(rendered.economy.entries())
        return Finished(path, path.stat().st_size, f"sha256:{digest}", compute_seconds, recipe)


def _store(folder: Path, step: int, data: bytes) -> StoredCheckpoint:
    path = folder / f"checkpoint-{step}.safetensors"
    path.write_bytes(data)
    return StoredCheckpoint(step, path, len(data), str(Sha256(data)))
