"""The text encoder at full width beside transformers', by the same random weights."""

from __future__ import annotations

import pytest
import torch
from transformers import UMT5Config, UMT5EncoderModel

from wan22_inference.engine.text_encoder_names import checkpoint_names
from wan22_testing.random_model import make_text_encoder
from wan22_testing.sizes import UMT5_XXL

SIZES = UMT5_XXL | {"vocab_size": 1_000, "num_layers": 3}


@pytest.mark.gpu
def test_embeddings_have_the_bits_of_transformers(cuda: torch.device) -> None:
    ours = make_text_encoder(SIZES, cuda)
    with cuda:
        theirs = UMT5EncoderModel(UMT5Config(feed_forward_proj="gated-gelu", pad_token_id=0, **SIZES))
    state = {checkpoint_names(name)[0]: tensor for name, tensor in ours.state_dict().items()}
    theirs.load_state_dict(state | {"encoder.embed_tokens.weight": state["shared.weight"]})
    theirs.to(torch.bfloat16).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.inference_mode():
        for count in (1, 2, 60, 511, 512):
            tokens = torch.randint(1, SIZES["vocab_size"], (1, 512), generator=generator)
            tokens[:, count:] = 0
            mask = torch.tensor([[1] * count + [0] * (512 - count)])
            expected = theirs(input_ids=tokens.to(cuda), attention_mask=mask.to(cuda)).last_hidden_state
            assert torch.equal(ours(tokens.to(cuda), count), expected), count
