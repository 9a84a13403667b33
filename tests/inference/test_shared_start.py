"""The two forwards of a guided step compute once what they have in common: the same bits, and nothing is kept."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from wan22.solvers import Solver
from wan22_inference.engine.condition import Condition, FirstFrame, ImageChannels, TextOnly
from wan22_inference.engine.noise import draw_noise, latent_shape, make_generator
from wan22_inference.engine.sampling import Expert, Text, denoise
from wan22_inference.engine.schedule import make_schedule
from wan22_inference.engine.shared_start import SharedStart
from wan22_inference.engine.shortcuts import ForwardPlan, Turn
from wan22_inference.engine.timesteps import Timesteps
from wan22_testing.forwards import Work, random_transformer
from wan22_testing.sizes import random_variant

from .starts import Starts, starts

RUN, REUSE, LEAVE_OUT = Turn.RUN, Turn.REUSE, Turn.LEAVE_OUT
CPU = torch.device("cpu")
STEPS = 4
"""Of two experts the first has 3."""
VARIANTS = ("t2v-a14b-tiny", "i2v-a14b-tiny", "ti2v-5b-tiny")
PLANS = {
    "nothing left out": None,
    "reuses": ForwardPlan((RUN, RUN, REUSE, RUN), (RUN, RUN, RUN, RUN)),
    "reuses of the negative prompt": ForwardPlan((RUN, RUN, RUN, RUN), (RUN, REUSE, RUN, RUN)),
    "reuses of both": ForwardPlan((RUN, REUSE, RUN, RUN), (RUN, REUSE, RUN, RUN)),
    "half is guided": ForwardPlan((RUN,) * STEPS, (RUN, RUN, LEAVE_OUT, LEAVE_OUT)),
}


class Loop:
    """A denoise loop of one variant with random weights, two layers deep."""

    def __init__(self, name: str, guidance: tuple[float, float] = (4.0, 3.0)) -> None:
        self.variant = random_variant(name)
        work = Work(name, 2, 64, 64, 9)
        self.shape = latent_shape(self.variant, work.width, work.height, work.num_frames)
        self.transformers = [random_transformer(work, seed, CPU) for seed in range(self.variant.experts)]
        self.experts = [Expert(*pair) for pair in zip(self.transformers, guidance, strict=False)]
        generator = torch.Generator().manual_seed(1)
        prompt, negative = torch.randn(2, 1, 512, 4096, generator=generator)
        self.text = Text(prompt, negative)
        self.condition = self._condition(generator)

    def _condition(self, generator: torch.Generator) -> Condition:
        _, channels, frames, *size = self.shape
        if self.variant.image == "required":
            more = self.variant.in_channels - channels
            return ImageChannels(torch.randn(1, more, frames, *size, generator=generator))
        if self.variant.image == "optional":  # with an image the tokens have two timesteps
            return FirstFrame(torch.randn(1, channels, 1, *size, generator=generator))
        return TextOnly()

    @torch.inference_mode()
    def run(self, plan: ForwardPlan | None = None, *, share_start: bool) -> tuple[Tensor, Starts]:
        generator = make_generator(7)
        latents = draw_noise(self.shape, generator)
        schedule = make_schedule(Solver.UNIPC, STEPS, 12.0, self.variant.boundary, CPU, generator)
        with starts(self.transformers) as watched:
            result = denoise(
                latents,
                schedule,
                self.experts,
                self.condition,
                self.text,
                report=lambda _: None,
                should_stop=lambda: False,
                plan=plan,
                share_start=share_start,
            )
        return result, watched


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS.keys())
def test_a_shared_start_changes_no_bits_and_is_computed_once_a_step(variant: str, plan: ForwardPlan | None) -> None:
    loop = Loop(variant)
    apart, without = loop.run(plan, share_start=False)
    shared, watched = loop.run(plan, share_start=True)
    assert torch.equal(shared, apart)
    turns = [(RUN, RUN)] * STEPS if plan is None else list(zip(plan.prompt, plan.negative, strict=True))
    assert without.runs == sum(pair.count(RUN) for pair in turns)
    assert watched.runs == without.runs - turns.count((RUN, RUN))


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS.keys())
def test_the_start_lives_from_one_forward_to_the_next_of_its_step_alone(variant: str, plan: ForwardPlan | None) -> None:
    loop = Loop(variant)
    turns = [(RUN, RUN)] * STEPS if plan is None else list(zip(plan.prompt, plan.negative, strict=True))
    _, watched = loop.run(plan, share_start=True)
    assert watched.alive == [
        alive for pair in turns for alive in ([1, 0] if pair == (RUN, RUN) else [0] * pair.count(RUN))
    ]
    assert watched.now_alive == 0
    _, without = loop.run(plan, share_start=False)
    assert set(without.alive) == {0}


def test_an_expert_without_guidance_keeps_nothing() -> None:
    loop = Loop("t2v-a14b-tiny", guidance=(4.0, 1.0))
    shared, watched = loop.run(share_start=True)
    assert watched.alive == [1, 0] * 3 + [0]
    assert torch.equal(shared, loop.run(share_start=False)[0])


@torch.inference_mode()
@pytest.mark.parametrize("kind", [{"fp8": True}, {"attention8": True}], ids=str)
def test_a_forward_that_takes_a_start_gives_the_bits_of_one_that_makes_it(kind: dict[str, bool]) -> None:
    module = random_transformer(Work("t2v-a14b-tiny", 3, 64, 64, 5), 1, CPU, **kind)
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(1, 16, 2, 8, 8, generator=generator)
    texts = [module.text_context(text) for text in torch.randn(2, 1, 512, 4096, generator=generator)]
    timesteps, shared = Timesteps(torch.tensor([900.0]), (2,)), SharedStart()
    apart = [module(latents, timesteps, text, lambda: None) for text in texts]
    assert not torch.equal(*apart)
    for text, expected in zip(texts, apart, strict=True):
        assert torch.equal(module(latents, timesteps, text, lambda: None, None, shared), expected)


def test_what_was_taken_is_made_anew_the_next_time() -> None:
    made: list[Tensor] = []

    def make() -> Tensor:
        made.append(torch.full((1, 2, 3), float(len(made))))
        return made[-1]

    shared = SharedStart()
    taken: list[Tensor] = [shared.take_or_make(make) for _ in range(4)]
    assert [float(branch[0, 0, 0]) for branch in taken] == [0.0, 0.0, 1.0, 1.0]
    assert taken[1] is made[0]
