"""How long the device waits between two generations of which the second was prepared beside the first."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from wan22.parameters import Parameters
from wan22_inference.engine.generate import Run, render
from wan22_inference.engine.model import Model
from wan22_inference.engine.preparation import Preparation
from wan22_inference.engine.progress import Progress, Stage

_FIRST_OF_THE_DIT = "_norm_rotate"
"""A kernel that nothing else launches; a few products of the texts come before it, so that no wait is left out."""


def seconds_between(model: Model, parameters: Parameters) -> float:
    """From the last kernel of one generation to the first DiT kernel of the next, whose preparation ran meanwhile.

    Beside the first the second's images and noise are made at once and its text between steps, as a worker does it; the
    MP4 of the first is being encoded while the second starts. On a CPU it is the time from the last frame handed on to
    the begin of denoising.
    """
    with TemporaryDirectory() as folder:
        _run_two(model, parameters, Path(folder))  # warms up
        if model.device.type != "cuda":
            return _run_two(model, parameters, Path(folder))
        with profile(activities=[ProfilerActivity.CUDA]) as trace:
            _run_two(model, parameters, Path(folder))
            torch.cuda.synchronize(model.device)
        return longest_wait(trace.events())


def longest_wait(events: Iterable[Any]) -> float:
    """Seconds from a copy to the host to the DiT's next first kernel, where that is longest.

    A generation ends with frames that are copied to the host, and begins with no such copy. A step ends with one too,
    to look for NaN: what is between two steps is no more than this.
    """
    found = sorted(
        (event.time_range.start, event.time_range.end, event.name)
        for event in events
        if event.device_type.name == "CUDA"
    )
    copied = [end for _, end, name in found if "DtoH" in name]
    waits: list[float] = []
    for start, _, name in found:
        if _FIRST_OF_THE_DIT in name:
            before = [end for end in copied if end <= start]
            since = [other for other, _, kind in found if kind == name and before and before[-1] <= other < start]
            if before and not since:
                waits.append((start - before[-1]) / 1e6)
    return max(waits)


def _run_two(model: Model, parameters: Parameters, folder: Path) -> float:
    first, second = (Preparation(model, parameters, {}) for _ in range(2))
    second.on_host()
    moments: dict[Stage, float] = {}

    def report(progress: Progress) -> None:
        moments.setdefault(progress.stage, time.perf_counter())

    run = Run(report=lambda _: None, should_stop=lambda: False, between_steps=second.on_device)
    rendered = render(model, first, folder / "first.mp4", run)
    ended = time.perf_counter()
    next_rendered = render(model, second, folder / "second.mp4", Run(report=report, should_stop=lambda: False))
    rendered.wait()
    next_rendered.wait()
    return moments[Stage.DENOISING] - ended
