"""What a batch of generations of one shape would gain, and whether each would keep its bits; tiny on a CPU."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from wan22.variants import VARIANTS
from wan22_inference.engine.noise import draw_noise, latent_shape, make_generator
from wan22_inference.engine.text_keys import TextKeys
from wan22_inference.engine.timesteps import Timesteps
from wan22_inference.engine.transformer import TextContext, Transformer
from wan22_testing.forwards import Work, error, free_memory, random_transformer, seconds

Figures = list[dict[str, Any]]
LAYERS = 4
SHAPES = [(64, 64, 1), (256, 256, 1), (480, 480, 1), (832, 480, 1), (480, 480, 17), (832, 480, 33), (832, 480, 81)]
TINY_SHAPES = [(64, 64, 1), (64, 64, 5), (128, 128, 17)]
SIZES = (2, 4)
CPU = torch.device("cpu")


class Requests:
    """As many requests of one shape as the largest batch takes, each with its own noise and text."""

    def __init__(
        self, variant: str, transformer: Transformer, shape: tuple[int, int, int], device: torch.device
    ) -> None:
        self._transformer = transformer
        latents_shape = latent_shape(VARIANTS[variant], *shape)
        self._latents = [draw_noise(latents_shape, make_generator(seed)).to(device) for seed in range(max(SIZES))]
        width = transformer.config.text_dim
        texts = torch.randn(max(SIZES), 1, 512, width, generator=make_generator(99)).to(device)
        self._texts = [transformer.text_context(text) for text in texts]
        self._timesteps = Timesteps(torch.tensor([700], device=device), (latents_shape[2],))

    @torch.inference_mode()
    def singly(self, count: int) -> Tensor:
        """The velocities of the first `count`, one forward each."""
        pairs = zip(self._latents[:count], self._texts[:count], strict=True)
        return torch.cat([self._transformer(latents, self._timesteps, text, _go_on) for latents, text in pairs])

    @torch.inference_mode()
    def together(self, count: int) -> Tensor:
        """The same of one forward."""
        blocks = zip(*(text.blocks for text in self._texts[:count]), strict=True)
        joined = TextContext(tuple(_joined(block) for block in blocks))
        velocity: Tensor = self._transformer(torch.cat(self._latents[:count]), self._timesteps, joined, _go_on)
        return velocity


def _joined(texts: Sequence[TextKeys]) -> TextKeys:
    return TextKeys(torch.cat([one.key for one in texts]), torch.cat([one.value for one in texts]), texts[0].padding)


def _go_on() -> None:
    pass


@pytest.fixture(scope="module")
def transformer(cuda: torch.device) -> Iterator[Transformer]:
    yield random_transformer(Work("t2v-a14b", LAYERS, 832, 480, 81), 0, cuda)
    free_memory(cuda)


@pytest.mark.gpu
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_batch_beside_single_forwards(
    transformer: Transformer, shape: tuple[int, int, int], cuda: torch.device, figures: Figures
) -> None:
    with torch.inference_mode():
        requests = Requests("t2v-a14b", transformer, shape, cuda)
    tokens = VARIANTS["t2v-a14b"].tokens(*shape)
    for count in SIZES:
        together, singly = requests.together(count), requests.singly(count)
        apart = [error(one, other) for one, other in zip(together, singly, strict=True)]
        assert max(apart) < 0.02
        same = "equal bits" if torch.equal(together, singly) else "other bits"
        batch = seconds(partial(requests.together, count), cuda)
        single = seconds(partial(requests.singly, count), cuda)
        figures.append(
            {
                "what": f"a batch of {count} over {count} forwards, 14B, {LAYERS} layers, {tokens} tokens: {same}",
                "unit": "ratio",
                "value": batch / single,
                "error": max(apart),
            }
        )


@pytest.mark.parametrize("shape", TINY_SHAPES, ids=str)
def test_a_batch_gives_what_single_forwards_give_at_tiny_sizes(shape: tuple[int, int, int]) -> None:
    work = Work("t2v-a14b-tiny", 2, *shape)
    with torch.inference_mode():
        requests = Requests(work.variant, random_transformer(work, 0, CPU), shape, CPU)
    for count in SIZES:
        torch.testing.assert_close(requests.together(count), requests.singly(count))
