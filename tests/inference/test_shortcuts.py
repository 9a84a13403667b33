"""Steps that are left out: which, and that a generation with them can stop and go on like any other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from wan22.errors import DataLoss
from wan22.parameters import Parameters
from wan22.profiles import Profile
from wan22.solvers import Solver
from wan22.variants import VARIANTS
from wan22_inference.engine.checkpoint import parse
from wan22_inference.engine.checkpoint_writer import CheckpointWriter
from wan22_inference.engine.generate import Run, generate
from wan22_inference.engine.model import Model
from wan22_inference.engine.noise import make_generator
from wan22_inference.engine.options import EngineOptions, Shortcuts
from wan22_inference.engine.schedule import make_schedule
from wan22_inference.engine.shortcuts import MAX_REUSES, Residual, Turn, plan, published_curve
from wan22_inference.engine.timesteps import Timesteps
from wan22_testing.forwards import Work, random_transformer

Make = Callable[..., Parameters]
Load = Callable[[str], Model]
CPU = torch.device("cpu")
PUBLISHED = 0.06
STEPS = 12


@pytest.mark.parametrize(("variant", "steps"), [("t2v-a14b", (26, 14)), ("i2v-a14b", (15, 25)), ("ti2v-5b", (50,))])
def test_the_published_curves_are_those_of_the_official_schedules(variant: str, steps: tuple[int, ...]) -> None:
    """The ratio of the step at which the experts change is far from 1, where the curve was measured at all."""
    chosen = VARIANTS[variant]
    given_steps = chosen.num_inference_steps
    schedule = make_schedule(Solver.UNIPC, given_steps, chosen.flow_shift, chosen.boundary, CPU, make_generator(0))
    for image in (False, True):
        curve = published_curve(variant, image=image)
        assert curve is not None
        assert len(curve.prompt) == len(curve.negative) == sum(steps) == given_steps
        assert curve.high_steps == schedule.high_steps == steps[0]
        if len(steps) == 2:
            assert curve.prompt[steps[0]] < 0.92
            assert min(curve.prompt[steps[0] - 1], curve.prompt[steps[0] + 1]) > 0.98


@pytest.mark.parametrize(
    ("variant", "steps", "run"),
    [("t2v-a14b", (26, 14), (15, 11)), ("i2v-a14b", (15, 25), (15, 15)), ("ti2v-5b", (50,), (25,))],
)
def test_with_the_published_settings_as_many_steps_are_run_as_by_the_authors_program(
    variant: str, steps: tuple[int, ...], run: tuple[int, ...]
) -> None:
    made = plan(Shortcuts(mag_cache=PUBLISHED), published_curve(variant, image=False), steps)
    counts, begin = [], 0
    for count in steps:
        counts.append(made.prompt[begin : begin + count].count(Turn.RUN))
        begin += count
    assert tuple(counts) == run


@given(
    st.sampled_from(["t2v-a14b", "i2v-a14b-tiny", "ti2v-5b"]),
    st.integers(1, 60),
    st.integers(0, 60),
    st.floats(0.001, 1.0),
    st.floats(0.0, 1.0),
)
def test_each_expert_starts_anew_and_never_reuses_long(
    variant: str, first: int, second: int, threshold: float, share: float
) -> None:
    steps = (first, second)[: VARIANTS[variant].experts]
    made = plan(Shortcuts(threshold, share), published_curve(variant, image=False), steps)
    begin = 0
    assert len(made.prompt) == len(made.negative) == sum(steps)
    for count in steps:
        prompt, negative = made.prompt[begin : begin + count], made.negative[begin : begin + count]
        begin += count
        assert prompt[:1] == (Turn.RUN,) * min(count, 1)
        assert Turn.LEAVE_OUT not in prompt
        assert negative.count(Turn.LEAVE_OUT) == count - min(count, int(-(-share * count // 1)))
        for turns in (prompt, negative):
            text = "".join("x" if turn is Turn.REUSE else "." for turn in turns)
            assert "x" * (MAX_REUSES + 1) not in text


def test_without_shortcuts_every_forward_is_run() -> None:
    made = plan(Shortcuts(), published_curve("t2v-a14b", image=False), (26, 14))
    assert {*made.prompt, *made.negative} == {Turn.RUN}
    assert not made.reuses


def test_the_options_are_told_only_where_they_change_something() -> None:
    assert EngineOptions().bits().keys() == {"threads", "text_encoder", "vae_decode_dtype"}
    options = EngineOptions(shortcuts=Shortcuts(0.06, 0.5), attention8=True)
    assert options.bits().items() >= {"mag_cache": "0.06", "guided_share": "0.5", "attention8": "yes"}.items()


@torch.inference_mode()
def test_what_the_blocks_add_stands_for_them() -> None:
    module = random_transformer(Work("t2v-a14b-tiny", 2, 64, 64, 5), 1, CPU)
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(1, 16, 2, 8, 8, generator=generator)
    text = module.text_context(torch.randn(1, 512, 4096, generator=generator))
    timesteps, kept = Timesteps(torch.tensor([900.0]), (2,)), Residual()
    plain = module(latents, timesteps, text, lambda: None)
    assert torch.equal(module(latents, timesteps, text, lambda: None, kept), plain)
    kept.reuse = True
    checks: list[None] = []
    reused = module(latents, timesteps, text, lambda: checks.append(None), kept)
    torch.testing.assert_close(reused, plain, rtol=1e-4, atol=1e-4)
    assert len(checks) == 1  # instead of one a block


def run(model: Model, chosen: Parameters, path: Path, **more: object) -> bytes:
    generate(model, chosen, {}, path, Run(report=lambda _: None, should_stop=lambda: False, **more))  # type: ignore[arg-type]  # a test's own
    return path.read_bytes()


def test_a_generation_with_shortcuts_is_reproducible_and_goes_on_from_every_checkpoint(
    tiny_model: Load, parameters: Make, tmp_path: Path
) -> None:
    plain = tiny_model("t2v-a14b-tiny")
    model = replace(plain, shortcuts=Shortcuts(mag_cache=0.5, guided_share=0.5))
    chosen = parameters("t2v-a14b-tiny", num_inference_steps=STEPS, flow_shift=12.0)
    taken: dict[int, bytes] = {}
    with CheckpointWriter(CPU, 0, taken.__setitem__) as checkpoints:
        whole = run(model, chosen, tmp_path / "a.mp4", checkpoints=checkpoints)
    assert run(model, chosen, tmp_path / "b.mp4") == whole
    assert run(plain, chosen, tmp_path / "c.mp4") != whole
    steps = (8, STEPS - 8)
    made = plan(model.shortcuts, published_curve("t2v-a14b", image=False), steps)
    assert sorted(taken) == [step for step in range(1, STEPS) if made.starts_anew(step)]
    assert 0 < len(taken) < STEPS - 1
    for step in (min(taken), max(taken)):
        resumed = run(model, chosen, tmp_path / f"{step}.mp4", resume=parse(taken[step], step))
        assert resumed == whole


def test_a_checkpoint_between_a_step_and_one_that_reuses_it_is_refused(
    tiny_model: Load, parameters: Make, tmp_path: Path
) -> None:
    plain = tiny_model("t2v-a14b-tiny")
    chosen = parameters("t2v-a14b-tiny", num_inference_steps=STEPS, flow_shift=12.0)
    taken: dict[int, bytes] = {}
    with CheckpointWriter(CPU, 0, taken.__setitem__) as checkpoints:
        run(plain, chosen, tmp_path / "a.mp4", checkpoints=checkpoints)
    shortcuts = Shortcuts(mag_cache=0.5)
    made = plan(shortcuts, published_curve("t2v-a14b", image=False), (8, STEPS - 8))
    step = next(step for step in taken if not made.starts_anew(step))
    with pytest.raises(DataLoss, match="is to be reused"):
        run(replace(plain, shortcuts=shortcuts), chosen, tmp_path / "b.mp4", resume=parse(taken[step], step))


def test_four_distilled_steps_are_all_run(tiny_model: Load, parameters: Make, tmp_path: Path) -> None:
    plain = tiny_model("t2v-a14b-tiny")
    chosen = parameters("t2v-a14b-tiny", profile=Profile.TURBO)
    short = replace(plain, shortcuts=Shortcuts(mag_cache=1.0, guided_share=0.0))
    assert run(short, chosen, tmp_path / "a.mp4") == run(plain, chosen, tmp_path / "b.mp4")
