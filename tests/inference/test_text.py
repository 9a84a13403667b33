from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from wan22.errors import InvalidRequest
from wan22.variants import NEGATIVE_PROMPT
from wan22_inference.engine.model import Model
from wan22_inference.engine.text import TextEncoder


@pytest.fixture
def encoder(tiny_model: Callable[[str], Model]) -> TextEncoder:
    return tiny_model("t2v-a14b-tiny").text_encoder


def test_embeddings_are_zero_past_the_end_token_and_nowhere_else(encoder: TextEncoder) -> None:
    embeddings = encoder.encode("a cat", "prompt")  # ▁a ▁cat </s>
    assert embeddings.shape == (1, 512, 32)
    assert (embeddings[0, :3].abs().sum(dim=1) > 0).all()
    assert not embeddings[0, 3:].any()


def test_padding_does_not_reach_the_text(encoder: TextEncoder) -> None:
    alone = encoder.module(input_ids=torch.tensor([encoder.tokenizer.encode("a cat").ids])).last_hidden_state
    torch.testing.assert_close(encoder.encode("a cat", "prompt")[:, :3], alone, rtol=1e-5, atol=1e-5)


def test_the_text_is_cleaned_first(encoder: TextEncoder) -> None:
    clean = encoder.encode("a cat & a dog", "prompt")
    assert torch.equal(encoder.encode("  a  cat &amp;amp;\n a dog ", "prompt"), clean)


def test_512_tokens_are_taken_and_513_refused(encoder: TextEncoder) -> None:
    longest = "a " * 511
    assert encoder.encode(longest, "prompt")[0, 511].any()
    with pytest.raises(InvalidRequest, match="negative_prompt has 513 tokens") as caught:
        encoder.encode(longest + "a", "negative_prompt")
    assert caught.value.violations[0].field == "parameters.negative_prompt"


def test_an_empty_text_is_its_end_token(encoder: TextEncoder) -> None:
    embeddings = encoder.encode("", "negative_prompt")
    assert embeddings[0, 0].any()
    assert not embeddings[0, 1:].any()


def test_the_official_negative_prompt_fits(encoder: TextEncoder) -> None:
    assert encoder.encode(NEGATIVE_PROMPT, "negative_prompt").isfinite().all()
