from __future__ import annotations

from typing import Any

import torch
from tools.train_tiny.denoiser import turn_to_words
from tools.train_tiny.text import LONGEST, FoldedText, folded
from torch.nn import functional

from wan22.variants import MAX_PROMPT_TOKENS, VARIANTS
from wan22_testing.sizes import random_variant
from wan22_testing.tiny_models import new_transformer


def test_a_folded_prompt_is_seen_as_the_whole_one() -> None:
    torch.manual_seed(0)
    expert = new_transformer(random_variant("t2v-a14b-tiny"), text_dim=64)
    expert.eval().requires_grad_(False)
    captions = 3 * torch.randn(2, LONGEST, 64)
    captions[:, 9:] = 0
    whole = functional.pad(captions, (0, 0, 0, MAX_PROMPT_TOKENS - LONGEST))
    x, times = torch.randn(2, 16, 2, 4, 4), torch.tensor([900.0, 100.0])
    wanted = expert(x, times, whole, return_dict=False)[0]
    expert.set_attn_processor(FoldedText())
    torch.testing.assert_close(expert(x, times, folded(captions), return_dict=False)[0], wanted, rtol=0, atol=1e-5)
    torch.testing.assert_close(expert(x, times, whole, return_dict=False)[0], wanted, rtol=0, atol=0)
    without = expert(x, times, captions, return_dict=False)[0]
    assert (without - wanted).abs().max() > 1e-3  # what is empty counts


def share_of_words(expert: Any) -> float:
    """Of the attention of new queries, to 9 words among 512 tokens."""
    text = torch.zeros(1, MAX_PROMPT_TOKENS, 64)
    text[:, :9] = torch.randn(9, 64)
    attention = expert.blocks[0].attn2
    queries = attention.norm_q(attention.to_q(torch.randn(1, 200, 160))).unflatten(2, (5, 32))
    keys = attention.norm_k(attention.to_k(expert.condition_embedder.text_embedder(text))).unflatten(2, (5, 32))
    logits = torch.einsum("bqhd,bkhd->bhqk", queries, keys) / 32**0.5
    return float(logits.softmax(-1)[..., :9].sum(-1).mean())


@torch.no_grad()
def test_new_experts_listen_to_words_more_than_to_empty_tokens() -> None:
    torch.manual_seed(0)
    expert = new_transformer(VARIANTS["t2v-a14b-tiny"], text_dim=64, heads=5)
    assert share_of_words(expert) < 0.1
    turn_to_words(expert)
    assert share_of_words(expert) > 0.5
