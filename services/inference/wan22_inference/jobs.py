"""The work of one attempt, and what it has come to."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from wan22.digests import Sha256
from wan22.economy import EMPTY, Economy
from wan22.errors import Cancelled, InternalError, Unavailable, Wan22Error
from wan22.parameters import Parameters
from wan22.recipe import Recipe
from wan22_inference.compute import Compute
from wan22_inference.engine.checkpoint import Checkpoint
from wan22_inference.engine.checkpoint_writer import CheckpointWriter, Deliver
from wan22_inference.engine.generate import Rendered, Run, render
from wan22_inference.engine.lora.adapter import LoraAdapter
from wan22_inference.engine.model import Model
from wan22_inference.engine.preparation import Preparation
from wan22_inference.engine.progress import Progress, Report, check_stop
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
class Work:
    """What a job does."""

    parameters: Parameters
    preparation: Preparation
    recipe: Recipe
    checkpoint_seconds: float
    """Between checkpoints; 0 takes one after each step."""
    resume: Checkpoint | None = None
    """Where to go on from."""
    economy: Economy = EMPTY
    """What is done from the start to need less memory."""
    adapters: Mapping[str, LoraAdapter] = field(default_factory=dict)
    """Each of the parameters' loras, by its name."""


@dataclass(frozen=True)
class Lost:
    """The worker has failed, not the attempt: elsewhere it may succeed."""

    error: Unavailable


Outcome = Finished | Failed | Stopped | Lost


class Job:
    """One attempt's work: progress so far, and in the end its outcome. Lives on the event loop."""

    def __init__(self, work: Work, folder: Path) -> None:
        self.parameters = work.parameters
        self.folder = folder
        self.progress: list[Progress] = []
        self.checkpoint: StoredCheckpoint | None = None
        """The newest."""
        self.outcome: Outcome | None = None
        self.changed = Signal()
        """Notified at progress, a checkpoint, the outcome, and when the owner may have changed."""
        self._work: Work | None = work
        self._stop = threading.Event()

    @property
    def model(self) -> Model:
        """What it was prepared for, until it has run."""
        return self._required_work().preparation.model

    def stop(self) -> None:
        """Asks the work to end at its next step."""
        self._stop.set()

    def prepare_on_host(self) -> None:
        """Does, before its turn, what needs no device. What fails is told when its turn comes."""
        self._prepare(Preparation.on_host)

    def prepare_on_device(self) -> None:
        """Does what takes the device for a moment; called between steps of another attempt."""
        self._prepare(Preparation.on_device)

    def _prepare(self, what: Callable[[Preparation], None]) -> None:
        work = self._work
        if work is None:
            return
        try:
            what(work.preparation)
        except (Wan22Error, RuntimeError) as error:  # torch's errors are RuntimeErrors, want of memory too
            log.info("What could be prepared ahead was not: %s", error)

    async def run(
        self, compute: Compute, model: Model, between_steps: Callable[[], None], leave_device: Callable[[], None]
    ) -> None:
        """Does the work; whatever happens becomes the outcome.

        `between_steps` is called in the compute thread, `leave_device` when what is left is to write the video.
        """
        loop = asyncio.get_running_loop()

        def report(progress: Progress) -> None:
            loop.call_soon_threadsafe(self._report, progress)

        def deliver(step: int, data: bytes) -> None:
            stored = _store(self.folder, step, data)
            loop.call_soon_threadsafe(self._checkpointed, stored)

        model.arrivals.on_failure(self.stop)
        outcome: Outcome
        try:
            started = time.monotonic()
            path = self.folder / "video.mp4"
            rendered = await compute.run(self._render, model, path, report, deliver, between_steps)
            seconds = time.monotonic() - started
            leave_device()
            outcome = await asyncio.to_thread(self._finish, rendered, path, seconds)
        except Cancelled:
            outcome = Stopped()
        except Wan22Error as error:
            outcome = Failed(error)
        except Exception as error:
            log.exception("An attempt failed by a fault of ours")
            outcome = Failed(
                InternalError(f"The engine failed by a fault of its own ({type(error).__name__}: {error}).")
            )
        if model.arrivals.failure is not None and not isinstance(outcome, Finished):
            outcome = Lost(model.arrivals.failure)
        self.outcome = outcome
        self._work = None  # its images and the checkpoint it began with are not needed any more
        self.changed.notify()

    def _report(self, progress: Progress) -> None:
        self.progress.append(progress)
        self.changed.notify()

    def _checkpointed(self, stored: StoredCheckpoint) -> None:
        if self.checkpoint is not None:
            self.checkpoint.path.unlink(missing_ok=True)  # a stream that reads it has it open
        self.checkpoint = stored
        self.changed.notify()

    def _render(
        self, model: Model, path: Path, report: Report, deliver: Deliver, between_steps: Callable[[], None]
    ) -> Rendered:
        """Runs in the compute thread."""
        work = self._required_work()
        with CheckpointWriter(model.device, work.checkpoint_seconds, deliver) as checkpoints:
            run = Run(
                report=report,
                should_stop=self._stop.is_set,
                checkpoints=checkpoints,
                resume=work.resume,
                economy=work.economy,
                between_steps=between_steps,
                adapters=work.adapters,
            )
            told = work.recipe.without_texts() if work.parameters.omit_prompt else work.recipe
            return render(model, work.preparation, path, run, told)

    def _finish(self, rendered: Rendered, path: Path, compute_seconds: float) -> Finished:
        """Waits for the file and hashes it, beside the next attempt's computation."""
        rendered.wait()
        check_stop(self._stop.is_set)
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        recipe = self._required_work().recipe.with_economy(rendered.economy.entries())
        return Finished(path, path.stat().st_size, f"sha256:{digest}", compute_seconds, recipe)

    def _required_work(self) -> Work:
        if self._work is None:
            raise RuntimeError("a job runs once")
        return self._work


def _store(folder: Path, step: int, data: bytes) -> StoredCheckpoint:
    path = folder / f"checkpoint-{step}.safetensors"
    path.write_bytes(data)
    return StoredCheckpoint(step, path, len(data), str(Sha256(data)))
