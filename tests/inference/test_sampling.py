from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from wan22.errors import Cancelled, InternalError, Reason
from wan22.solvers import Solver
from wan22.variants import VARIANTS
from wan22_inference.engine.condition import FirstFrame, TextOnly
from wan22_inference.engine.noise import draw_noise, latent_shape, make_generator
from wan22_inference.engine.progress import Check, Progress, Stage
from wan22_inference.engine.sampling import Expert, Text, denoise
from wan22_inference.engine.schedule import Schedule, make_schedule
from wan22_inference.engine.shared_start import SharedStart
from wan22_inference.engine.shortcuts import ForwardPlan, Residual, Turn
from wan22_inference.engine.text_keys import TextKeys
from wan22_inference.engine.timesteps import Timesteps
from wan22_inference.engine.transformer import TextContext

NOISE = torch.ones(1, 1, 1, 2, 2)
PROMPT, NEGATIVE = torch.full((1, 512, 4), 2.0), torch.full((1, 512, 4), 1.0)


class Field:
    """A velocity field that notes what it is asked: its velocity is a factor times the text's first value."""

    def __init__(self, factor: float) -> None:
        self.factor = factor
        self.encoded: list[float] = []
        self.asked: list[float] = []
        self.reused: list[float] = []
        self.shared: list[SharedStart | None] = []

    def text_context(self, embeddings: Tensor) -> TextContext:
        self.encoded.append(float(embeddings[0, 0, 0]))
        return TextContext((TextKeys(embeddings, embeddings, 1),))

    def __call__(
        self,
        latents: Tensor,
        timesteps: Timesteps,
        text: TextContext,
        check: Check,
        residual: Residual | None = None,
        shared: SharedStart | None = None,
    ) -> Tensor:
        check()
        self.shared.append(shared)
        if residual is not None and residual.reuse:
            assert residual.value is not None
            self.reused.append(float(residual.value))
            return torch.full_like(latents, self.factor * self.reused[-1])
        self.asked.append(float(text.blocks[0].key[0, 0, 0]))
        if residual is not None:
            residual.value = torch.tensor(self.asked[-1])
        return torch.full_like(latents, self.factor * self.asked[-1])


def schedule() -> Schedule:
    """4 steps, the first 3 of the high-noise expert."""
    made = make_schedule(Solver.UNIPC, 4, 12.0, 0.875, torch.device("cpu"), make_generator(0))
    assert made.high_steps == 3
    return made


def run(experts: list[Expert], **changed: Any) -> Tensor:
    given: dict[str, Any] = {"report": lambda _: None, "should_stop": lambda: False} | changed
    return denoise(NOISE, schedule(), experts, TextOnly(), Text(PROMPT, NEGATIVE), **given)


def test_the_experts_take_their_turns() -> None:
    high, low = Field(0.1), Field(0.2)
    run([Expert(high, 1.0), Expert(low, 1.0)])
    assert (high.asked, low.asked) == ([2.0] * 3, [2.0])


def test_each_expert_is_guided_by_its_own_scale() -> None:
    high, low = Field(0.1), Field(0.2)
    run([Expert(high, 1.0), Expert(low, 3.0)])
    assert (high.asked, low.asked) == ([2.0] * 3, [2.0, 1.0])
    high, low = Field(0.1), Field(0.2)
    run([Expert(high, 4.0), Expert(low, 1.0)])
    assert (high.asked, low.asked) == ([2.0, 1.0] * 3, [2.0])


def test_a_text_is_encoded_once_for_each_expert() -> None:
    high, low = Field(0.1), Field(0.2)
    run([Expert(high, 4.0), Expert(low, 1.0)])
    assert (sorted(high.encoded), low.encoded) == ([1.0, 2.0], [2.0])


def test_guidance_goes_from_the_negative_towards_the_prompt() -> None:
    guided = run([Expert(Field(0.1), 4.0), Expert(Field(0.1), 4.0)])
    velocity = 0.1 * (1.0 + 4.0 * (2.0 - 1.0))  # constant, so the latents fall by it times sigma's fall to 0
    expected = 1.0 - velocity * float(schedule().solver.sigmas[0])
    torch.testing.assert_close(guided, torch.full_like(NOISE, expected), rtol=1e-5, atol=1e-5)


def test_every_step_is_told() -> None:
    heard: list[Progress] = []
    run([Expert(Field(0.1), 1.0)] * 2, report=heard.append)
    assert heard == [Progress(Stage.DENOISING, step, 4) for step in range(5)]


def test_a_stop_takes_effect_at_the_next_step() -> None:
    heard: list[Progress] = []
    field = Field(0.1)
    with pytest.raises(Cancelled):
        run([Expert(field, 1.0)] * 2, report=heard.append, should_stop=lambda: heard[-1].step == 2)
    assert len(field.asked) == 2


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_fail_with_their_step(bad: float) -> None:
    with pytest.raises(InternalError, match="not finite after step 4") as caught:
        run([Expert(Field(0.1), 1.0), Expert(Field(bad), 1.0)])
    assert caught.value.reason is Reason.NOT_FINITE
    assert caught.value.metadata == {"step": "4"}


def test_the_first_frame_of_ti2v_is_the_image_at_timestep_zero() -> None:
    latents, image = torch.randn(1, 48, 3, 4, 6), torch.randn(1, 48, 1, 4, 6)
    seen, timesteps = FirstFrame(image).model_input(latents, torch.tensor(700))
    assert torch.equal(seen[:, :, :1], image)
    assert torch.equal(seen[:, :, 1:], latents[:, :, 1:])
    assert (timesteps.values.tolist(), timesteps.latent_frames) == ([0, 700], (1, 2))
    assert timesteps.tokens(6) == (6, 12)
    seen, timesteps = FirstFrame(image).model_input(latents[:, :, :1], torch.tensor(700))
    assert torch.equal(seen, image)
    assert (timesteps.values.tolist(), timesteps.latent_frames) == ([0], (1,))
    seen, timesteps = FirstFrame(None).model_input(latents, torch.tensor(700))
    assert torch.equal(seen, latents)
    assert (timesteps.values.tolist(), timesteps.latent_frames) == ([700], (3,))


def test_noise_depends_on_the_seed_alone() -> None:
    shape = latent_shape(VARIANTS["ti2v-5b"], 1280, 704, 121)
    assert shape == (1, 48, 31, 44, 80)
    assert latent_shape(VARIANTS["t2v-a14b"], 832, 480, 81) == (1, 16, 21, 60, 104)
    largest = 2**63 - 1
    first = draw_noise((1, 2, 3), make_generator(largest))
    assert torch.equal(first, draw_noise((1, 2, 3), make_generator(largest)))
    assert not torch.equal(first, draw_noise((1, 2, 3), make_generator(largest - 1)))
    # torch's own generator, as diffusers draws it for the same seed.
    expected = torch.randn((2, 2), generator=torch.Generator().manual_seed(0))
    assert torch.equal(draw_noise((2, 2), make_generator(0)), expected)


RUN, REUSE, LEAVE_OUT = Turn.RUN, Turn.REUSE, Turn.LEAVE_OUT


def test_a_step_reuses_what_its_own_text_made_and_the_next_expert_starts_anew() -> None:
    high, low = Field(0.1), Field(0.2)
    plan = ForwardPlan((RUN, REUSE, REUSE, RUN), (RUN, REUSE, RUN, RUN))
    run([Expert(high, 4.0), Expert(low, 4.0)], plan=plan)
    assert (high.asked, high.reused) == ([2.0, 1.0, 1.0], [2.0, 1.0, 2.0])
    assert (low.asked, low.reused) == ([2.0, 1.0], [])
    with pytest.raises(AssertionError):
        run([Expert(high, 4.0), Expert(low, 4.0)], plan=ForwardPlan((RUN, RUN, RUN, REUSE), (RUN,) * 4))


def test_a_step_without_the_negative_prompt_is_not_guided() -> None:
    high, low = Field(0.1), Field(0.2)
    plan = ForwardPlan((RUN,) * 4, (RUN, LEAVE_OUT, LEAVE_OUT, RUN))
    gated = run([Expert(high, 4.0), Expert(low, 4.0)], plan=plan)
    assert (high.asked, low.asked) == ([2.0, 1.0, 2.0, 2.0], [2.0, 1.0])
    all_run = ForwardPlan((RUN,) * 4, (RUN,) * 4)
    guided = run([Expert(Field(0.1), 4.0), Expert(Field(0.2), 4.0)], plan=all_run)
    assert torch.equal(guided, run([Expert(Field(0.1), 4.0), Expert(Field(0.2), 4.0)]))
    assert not torch.equal(guided, gated)


def test_each_guided_step_whose_forwards_both_run_has_a_start_of_its_own() -> None:
    high, low = Field(0.1), Field(0.2)
    plan = ForwardPlan((RUN, RUN, REUSE, RUN), (RUN, RUN, RUN, LEAVE_OUT))
    run([Expert(high, 4.0), Expert(low, 4.0)], plan=plan, share_start=True)
    first, second, *others = zip(high.shared[0::2], high.shared[1::2], strict=True)
    assert None not in (*first, *second)
    assert (first[0] is first[1], second[0] is second[1], first[0] is second[0]) == (True, True, False)
    assert (others, low.shared) == ([(None, None)], [None])
    high, low = Field(0.1), Field(0.2)
    run([Expert(high, 4.0), Expert(low, 1.0)])
    assert {*high.shared, *low.shared} == {None}
