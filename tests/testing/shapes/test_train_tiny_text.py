from __future__ import annotations

import torch
from tools.train_tiny.text import LONGEST, FoldedText, folded
from torch.nn import functional

from wan22.variants import MAX_PROMPT_TOKENS, VARIANTS
from wan22_testing.tiny_models import new_transformer


def test_a_folded_prompt_is_seen_as_the_whole_one() -> None:
    torch.manual_seed(0)
    expert = new_transformer(VARIANTS["t2v-a14b-tiny"], text_dim=64, dim=96, ffn_dim=64, num_layers=2)
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
