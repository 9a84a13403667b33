"""Our UMT5 encoder against transformers', bit for bit."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pytest
import torch
from torch import Tensor
from transformers import UMT5Config, UMT5EncoderModel

from wan22_inference.engine.text_encoder_config import read_text_encoder_config
from wan22_inference.engine.text_encoder_model import TextEncoderModel
from wan22_inference.engine.text_encoder_names import checkpoint_names

TINY = {"vocab_size": 100, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_heads": 4, "num_layers": 2}
WIDE = {"vocab_size": 300, "d_model": 192, "d_kv": 64, "d_ff": 448, "num_heads": 6, "num_layers": 5}
NEARER = {"relative_attention_num_buckets": 16, "relative_attention_max_distance": 60, "layer_norm_epsilon": 1e-3}
DTYPES = [torch.float32, torch.bfloat16]


def weight(name: str, like: Tensor, generator: torch.Generator) -> Tensor:
    """Such that scores, gates and sums are of the size that trained weights give."""
    noise = torch.randn(like.shape, generator=generator)
    if like.ndim == 1:
        return 1.0 + 0.3 * noise
    if name.startswith(("embedding", "shared")) or "bias" in name:
        return 2.0 * noise
    return noise * 1.5 / math.sqrt(like.shape[1])


def both(sizes: Mapping[str, float], dtype: torch.dtype) -> tuple[TextEncoderModel, UMT5EncoderModel]:
    """The same weights in either, which transformers reads under its own names."""
    config = read_text_encoder_config(sizes)
    ours = TextEncoderModel(config)
    generator = torch.Generator().manual_seed(0)
    state = {name: weight(name, tensor, generator) for name, tensor in ours.state_dict().items()}
    ours.load_state_dict(state)
    theirs = UMT5EncoderModel(UMT5Config(feed_forward_proj="gated-gelu", pad_token_id=0, **sizes)).eval()
    named = {checkpoint_names(name)[0]: tensor for name, tensor in state.items()}
    theirs.load_state_dict(named | {"encoder.embed_tokens.weight": state["embedding.weight"]})
    return ours.to(dtype), theirs.to(dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("sizes", [TINY, WIDE, WIDE | NEARER], ids=["tiny", "wide", "nearer"])
def test_embeddings_have_the_bits_of_transformers(sizes: Mapping[str, float], dtype: torch.dtype) -> None:
    ours, theirs = both(sizes, dtype)
    generator = torch.Generator().manual_seed(1)
    with torch.inference_mode():
        for length, count in [(512, 1), (512, 2), (512, 77), (512, 300), (512, 511), (512, 512), (9, 9), (1, 1)]:
            tokens = torch.randint(1, int(sizes["vocab_size"]), (1, length), generator=generator)
            tokens[:, count:] = 0
            mask = torch.tensor([[1] * count + [0] * (length - count)])
            expected = theirs(input_ids=tokens, attention_mask=mask).last_hidden_state
            found = ours(tokens, count)
            assert found.dtype is dtype
            assert torch.equal(found, expected), (length, count)
            assert found[0, :count].std() > 0.5


def test_rows_of_a_batch_are_what_they_are_alone() -> None:
    ours, _ = both(TINY, torch.float32)
    tokens = torch.randint(1, 100, (3, 20), generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        together = ours(tokens, 15)
        for row in range(3):
            torch.testing.assert_close(together[row : row + 1], ours(tokens[row : row + 1], 15), rtol=1e-5, atol=1e-5)


def test_the_order_of_tokens_matters_and_what_padding_holds_does_not() -> None:
    ours, _ = both(TINY, torch.float32)
    tokens = torch.arange(1, 21)[None]
    with torch.inference_mode():
        whole = ours(tokens, 12)[:, :12]
        other_padding = ours(torch.cat([tokens[:, :12], tokens[:, 12:].flip(1)], dim=1), 12)[:, :12]
        turned = ours(torch.cat([tokens[:, :12].flip(1), tokens[:, 12:]], dim=1), 12)[:, :12].flip(1)
    assert torch.equal(whole, other_padding)
    assert (whole - turned).abs().max() > 0.1


def test_each_parameter_has_the_name_that_transformers_gives_it() -> None:
    with torch.device("meta"):
        ours = TextEncoderModel(read_text_encoder_config(WIDE))
        theirs = UMT5EncoderModel(UMT5Config(feed_forward_proj="gated-gelu", **WIDE))
    names = {checkpoint_names(name)[0]: tensor.shape for name, tensor in ours.state_dict().items()}
    assert names == {name: tensor.shape for name, tensor in theirs.named_parameters()}
