"""Resuming from any checkpoint gives the bits of the undisturbed run, whatever the solver and the variant."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from wan22.errors import DataLoss, Reason
from wan22.parameters import Parameters
from wan22_inference.engine.checkpoint import Checkpoint, dump, parse
from wan22_inference.engine.checkpoint_writer import CheckpointWriter
from wan22_inference.engine.generate import Run, generate
from wan22_inference.engine.model import Model
from wan22_inference.engine.progress import Progress, Stage

Make = Callable[..., Parameters]
Load = Callable[[str], Model]
CPU = torch.device("cpu")
STEPS = 5


def run(
    model: Model,
    parameters: Parameters,
    path: Path,
    images: dict[str, bytes] | None = None,
    resume: Checkpoint | None = None,
) -> tuple[bytes, dict[int, bytes], list[Progress]]:
    """The video, the checkpoint after each step, and what was reported."""
    checkpoints: dict[int, bytes] = {}
    heard: list[Progress] = []
    with CheckpointWriter(CPU, 0, checkpoints.__setitem__) as writer:
        surroundings = Run(report=heard.append, should_stop=lambda: False, checkpoints=writer, resume=resume)
        generate(model, parameters, images or {}, path, surroundings)
    return path.read_bytes(), checkpoints, heard


@pytest.mark.parametrize("solver", ["UNIPC", "DPMPP", "EULER", "LCM"])
def test_each_step_of_each_solver_can_be_resumed_from(
    tiny_model: Load, parameters: Make, tmp_path: Path, solver: str
) -> None:
    model = tiny_model("t2v-a14b-tiny")
    chosen = parameters("t2v-a14b-tiny", num_inference_steps=STEPS, solver=solver)
    whole, checkpoints, _ = run(model, chosen, tmp_path / "whole.mp4")
    assert sorted(checkpoints) == list(range(1, STEPS))
    for step, data in checkpoints.items():
        resumed, later, heard = run(model, chosen, tmp_path / "resumed.mp4", resume=parse(data, step))
        assert resumed == whole
        assert later == {number: known for number, known in checkpoints.items() if number > step}
        steps = [progress.step for progress in heard if progress.stage is Stage.DENOISING]
        assert steps == list(range(step, STEPS + 1))  # none is done twice


@pytest.mark.parametrize("variant", ["i2v-a14b-tiny", "ti2v-5b-tiny"])
def test_a_generation_from_an_image_can_be_resumed(
    tiny_model: Load,
    parameters: Make,
    picture: Callable[..., tuple[str, bytes]],
    tmp_path: Path,
    variant: str,
) -> None:
    media, png = picture(1)
    model, chosen = tiny_model(variant), parameters(variant, image=media, num_inference_steps=3)
    whole, checkpoints, _ = run(model, chosen, tmp_path / "whole.mp4", {media: png})
    resumed, _, _ = run(model, chosen, tmp_path / "resumed.mp4", {media: png}, parse(checkpoints[2], 2))
    assert resumed == whole


def test_checkpoints_change_no_bits(tiny_model: Load, parameters: Make, tmp_path: Path) -> None:
    model, chosen = tiny_model("t2v-a14b-tiny"), parameters("t2v-a14b-tiny", num_inference_steps=3)
    generate(model, chosen, {}, tmp_path / "plain.mp4", Run(report=lambda _: None, should_stop=lambda: False))
    assert run(model, chosen, tmp_path / "taken.mp4")[0] == (tmp_path / "plain.mp4").read_bytes()


def test_a_checkpoint_of_another_size_or_solver_is_refused(tiny_model: Load, parameters: Make, tmp_path: Path) -> None:
    model = tiny_model("t2v-a14b-tiny")
    asked: dict[str, object] = {"num_inference_steps": 3, "solver": "UNIPC"}
    _, small, _ = run(model, parameters("t2v-a14b-tiny", **asked), tmp_path / "v.mp4")
    larger = parameters("t2v-a14b-tiny", **asked, num_frames=9)
    with pytest.raises(DataLoss, match="latents are") as caught:
        run(model, larger, tmp_path / "v.mp4", resume=parse(small[1], 1))
    assert caught.value.reason is Reason.DAMAGED_CHECKPOINT
    euler = parameters("t2v-a14b-tiny", **asked | {"solver": "EULER"})
    with pytest.raises(DataLoss, match="not of this solver"):
        run(model, euler, tmp_path / "v.mp4", resume=parse(small[2], 2))


@pytest.mark.parametrize("data", [b"", b"\x08\x00\x00\x00\x00\x00\x00\x00{}      ", dump({"x": torch.zeros(2)})])
def test_bytes_that_are_no_checkpoint_are_refused(data: bytes) -> None:
    with pytest.raises(DataLoss, match="cannot be read"):
        parse(data, 1)


def test_the_loop_does_not_wait_for_a_checkpoint_that_is_still_on_its_way() -> None:
    go_on, delivered = threading.Event(), []

    def deliver(step: int, _data: bytes) -> None:
        go_on.wait(60)
        delivered.append(step)

    def checkpoint(step: int) -> Checkpoint:
        return Checkpoint(step, torch.zeros(1), {})

    with CheckpointWriter(CPU, 1e-9, deliver) as writer:
        writer.offer(lambda: checkpoint(1))
        writer.offer(lambda: checkpoint(2))  # passed over: the first is not delivered yet
        go_on.set()
    assert delivered == [1]


def test_before_the_interval_is_over_none_is_taken() -> None:
    delivered: list[int] = []
    with CheckpointWriter(CPU, 3600.0, lambda step, _: delivered.append(step)) as writer:
        writer.offer(lambda: pytest.fail("made too early"))
    assert delivered == []


def test_a_full_disk_costs_the_checkpoint_and_not_the_generation(caplog: pytest.LogCaptureFixture) -> None:
    def deliver(step: int, _data: bytes) -> None:
        raise OSError(f"no space for step {step}")

    with CheckpointWriter(CPU, 0, deliver) as writer:
        for step in (1, 2):
            writer.offer(functools.partial(Checkpoint, step, torch.zeros(1), {}))
    assert caplog.messages == [f"No checkpoint is kept of step {step}: no space for step {step}" for step in (1, 2)]


def test_a_fault_of_ours_in_delivering_ends_the_generation() -> None:
    def deliver(step: int, _data: bytes) -> None:
        raise ValueError(f"step {step}")

    with CheckpointWriter(CPU, 0, deliver) as writer:
        writer.offer(functools.partial(Checkpoint, 1, torch.zeros(1), {}))
        with pytest.raises(ValueError, match="step 1"):
            writer.offer(functools.partial(Checkpoint, 2, torch.zeros(1), {}))
