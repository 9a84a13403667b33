"""The work of one attempt, and what it has come to."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from wan22.errors import Cancelled, InternalError, Wan22Error
from wan22.parameters import Parameters
from wan22_inference.compute import Compute
from wan22_inference.engine.generate import generate
from wan22_inference.engine.model import Model
from wan22_inference.engine.progress import Progress, Report
from wan22_inference.signals import Signal

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Finished:
    """There is a video."""

    path: Path
    size_bytes: int
    digest: str
    compute_seconds: float


@dataclass(frozen=True)
class Failed:
    """The attempt failed, and would fail again."""

    error: Wan22Error


@dataclass(frozen=True)
class Stopped:
    """The attempt was stopped on request."""


Outcome = Finished | Failed | Stopped


class Job:
    """One attempt's work: progress so far, and in the end its outcome. Lives on the event loop."""

    def __init__(self, parameters: Parameters, images: Mapping[str, bytes], folder: Path) -> None:
        self.parameters = parameters
        self.folder = folder
        self.progress: list[Progress] = []
        self.outcome: Outcome | None = None
        self.changed = Signal()
        """Notified at progress, at the outcome, and when the owner may have changed."""
        self._images = images
        self._stop = threading.Event()

    def stop(self) -> None:
        """Asks the work to end at its next step."""
        self._stop.set()

    async def run(self, compute: Compute, model: Model) -> None:
        """Does the work; whatever happens becomes the outcome."""
        loop = asyncio.get_running_loop()

        def report(progress: Progress) -> None:
            loop.call_soon_threadsafe(self._report, progress)

        try:
            self.outcome = await compute.run(self._work, model, report)
        except Cancelled:
            self.outcome = Stopped()
        except Wan22Error as error:
            self.outcome = Failed(error)
        except Exception as error:
            log.exception("An attempt failed by a fault of ours")
            self.outcome = Failed(
                InternalError(f"The engine failed by a fault of its own ({type(error).__name__}: {error}).")
            )
        self._images = {}
        self.changed.notify()

    def _report(self, progress: Progress) -> None:
        self.progress.append(progress)
        self.changed.notify()

    def _work(self, model: Model, report: Report) -> Finished:
        """Runs in the compute thread."""
        started = time.monotonic()
        path = self.folder / "video.mp4"
        generate(model, self.parameters, self._images, path, report=report, should_stop=self._stop.is_set)
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return Finished(path, path.stat().st_size, f"sha256:{digest}", time.monotonic() - started)
