from __future__ import annotations

import json
from typing import Any

import pytest
from transformers import UMT5Config

from wan22.errors import FailedPrecondition, Reason
from wan22.official_configs import text_encoder_config
from wan22_inference.engine.text_encoder_config import TextEncoderConfig, read_text_encoder_config

SIZES = {"vocab_size": 100, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_heads": 4, "num_layers": 2}
READ = TextEncoderConfig(
    vocab_size=100,
    dim=32,
    num_heads=4,
    head_dim=8,
    num_layers=2,
    ffn_dim=64,
    num_buckets=32,
    max_distance=128,
    eps=1e-6,
    pad_token=0,
)


def test_what_transformers_writes_is_read_and_what_it_leaves_out_is_its_default() -> None:
    written = UMT5Config(**SIZES).to_dict()
    assert {"architectures", "dropout_rate", "initializer_factor"} <= written.keys()  # nothing that is looked at
    assert read_text_encoder_config(written) == READ
    assert read_text_encoder_config(SIZES) == READ


def test_what_is_told_from_official_weights_is_read() -> None:
    shapes = {
        "token_embedding.weight": (100, 32),
        "blocks.0.pos_embedding.embedding.weight": (32, 4),
        "blocks.0.attn.q.weight": (32, 32),
        "blocks.0.ffn.gate.0.weight": (64, 32),
        "blocks.1.norm1.weight": (32,),
    }
    assert read_text_encoder_config(json.loads(text_encoder_config(shapes))) == READ


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"model_type": "t5"}, "model_type is t5, where this engine knows umt5"),
        ({"feed_forward_proj": "relu"}, "feed_forward_proj is relu, where this engine knows gated-gelu"),
        ({"is_decoder": True}, "is_decoder is True, where this engine knows False"),
        ({"d_model": None}, "lacks d_model"),
        ({"num_heads": 0}, "num_heads is 0, which is no whole number from 1 on"),
        ({"num_layers": True}, "num_layers is True, which is no size"),
        ({"d_ff": "64"}, "d_ff is 64, which is no size"),
        ({"d_kv": 8.5}, "d_kv is 8.5, which is no whole number from 1 on"),
        ({"pad_token_id": -1}, "pad_token_id is -1, which is no size"),
        ({"relative_attention_num_buckets": 30}, "relative_attention_num_buckets is 30 and relative_"),
        ({"relative_attention_max_distance": 8}, "relative_attention_max_distance 8: the first is a multiple of 4"),
    ],
)
def test_what_no_umt5_encoder_has_is_refused_by_its_key(change: dict[str, Any], text: str) -> None:
    with pytest.raises(FailedPrecondition, match=f"text_encoder/config.json .*{text}") as caught:
        read_text_encoder_config(SIZES | change)
    assert caught.value.reason is Reason.MODEL_MISFIT
