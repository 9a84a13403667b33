"""A generation's progress for people: a live bar on a terminal, one line a change elsewhere."""

from __future__ import annotations

from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from wan22.v1 import generation_pb2
from wan22.v1.generation_pb2 import Generation, GenerationEvent

STAGES = {
    generation_pb2.Progress.ENCODING_TEXT: "encoding the text",
    generation_pb2.Progress.ENCODING_IMAGE: "encoding the image",
    generation_pb2.Progress.DENOISING: "denoising",
    generation_pb2.Progress.DECODING: "decoding the frames",
    generation_pb2.Progress.STORING: "storing the video",
}


def describe(event: GenerationEvent) -> str:
    """An event in a few words."""
    kind = event.WhichOneof("event")
    if kind == "state_change":
        state = Generation.State.Name(event.state_change.state).lower()
        return f"{state}: {event.state_change.error.message}" if event.state_change.HasField("error") else state
    if kind == "attempt_start":
        return _attempt(event.attempt_start)
    if kind == "attempt_end":
        return f"attempt {event.attempt_end.attempt} ended, it is queued again: {event.attempt_end.reason}"
    if kind == "progress":
        stage = STAGES.get(event.progress.stage, "working")
        steps = event.progress.HasField("step") and event.progress.HasField("num_steps")
        return f"{stage}, step {event.progress.step} of {event.progress.num_steps}" if steps else stage
    if kind == "preview":
        return f"preview of step {event.preview.step} of {event.preview.num_steps}"
    if kind == "queue":
        waiting = f", waits for {event.queue.waiting_for}" if event.queue.waiting_for else ""
        return f"queued, position {event.queue.queue_position}{waiting}"
    return "an event that this version does not know"


def _attempt(start: generation_pb2.AttemptStart) -> str:
    text = f"attempt {start.attempt} on {start.worker}"
    if start.resumed_step:
        return f"{text}, from step {start.resumed_step} on"
    return f"{text}, from the beginning: {start.restart_reason}" if start.restart_reason else text


class ProgressBar:
    """Shows a generation's events as they come; use as a context manager."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task("sending the request", total=None)
        self._said = ""

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def show(self, event: GenerationEvent) -> None:
        """Moves the bar. An attempt that ended early stays as a line of its own; previews are not shown."""
        if event.HasField("preview"):
            return
        text = describe(event)
        if event.HasField("attempt_end") or not self._console.is_terminal:
            self._say(text)
        denoising = event.progress.stage == generation_pb2.Progress.DENOISING
        total = event.progress.num_steps if denoising else None
        step = event.progress.step if denoising else 0
        self._progress.update(self._task, description=text, total=total, completed=step, refresh=True)

    def _say(self, text: str) -> None:
        if text != self._said:
            self._said = text
            self._console.print(text, markup=False, soft_wrap=True)
