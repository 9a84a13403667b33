"""Previews as a worker sends them, whatever kind of worker it is."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from wan22.errors import InvalidRequest
from wan22.parameters import Parameters
from wan22.previews import MAX_BYTES, MAX_SIDE, webp_size

from .calls import attempt, error_of, kinds, to_the_end, video_of
from .worker_kinds import WorkerKind

Short = Callable[..., Parameters]


async def test_previews_come_when_they_are_asked_for_and_change_no_bit(
    kind: WorkerKind, tmp_path: Path, short: Short
) -> None:
    chosen = short(num_inference_steps=6)
    async with kind.ready(tmp_path) as (_, caller):
        plain = await to_the_end(caller.generate(chosen, attempt(1)))
        await caller.release(attempt(1))
        events = await to_the_end(caller.generate(chosen, attempt(2), preview_interval=2))
        again = await to_the_end(caller.generate(chosen, attempt(2), preview_interval=2))
    assert "preview" not in kinds(plain)
    assert video_of(events) == video_of(plain)
    shown = [event.preview for event in events if event.HasField("preview")]
    steps = [preview.step for preview in shown]
    assert steps
    assert set(steps) <= {2, 4}
    assert sorted(set(steps)) == steps
    for preview in shown:
        assert preview.num_steps == 6
        assert len(preview.image) <= MAX_BYTES
        assert webp_size(preview.image) == (preview.width, preview.height)
        assert max(preview.width, preview.height) <= MAX_SIDE
        with Image.open(io.BytesIO(preview.image)) as image:
            image.load()
            assert (image.format, image.size) == ("WEBP", (preview.width, preview.height))
    reshown = [event.preview for event in again if event.HasField("preview")]
    assert reshown == shown[-1:]  # who re-attaches gets the newest


@pytest.mark.parametrize("interval", [-1, 101])
async def test_an_interval_out_of_range_is_refused(
    kind: WorkerKind, tmp_path: Path, short: Short, interval: int
) -> None:
    async with kind.ready(tmp_path) as (_, caller):
        error = await error_of(caller.generate(short(), attempt(), preview_interval=interval))
    assert isinstance(error, InvalidRequest)
    assert error.violations[0].field == "start.preview_interval"
