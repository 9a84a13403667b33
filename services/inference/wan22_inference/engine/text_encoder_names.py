"""The names that checkpoints use for the text encoder's parameters: transformers' and the official repository's.

Sources: UMT5EncoderModel of transformers; T5Encoder in wan/modules/t5.py of Wan-Video/Wan2.2.
"""

from __future__ import annotations

from collections.abc import Mapping

ALIASES: Mapping[str, str] = {"encoder.embed_tokens.weight": "embedding.weight"}
"""Another name of transformers for a parameter, which a checkpoint may use beside the first or in its place."""
_ROOT: Mapping[str, tuple[str, str]] = {
    "embedding": ("shared", "token_embedding"),
    "norm": ("encoder.final_layer_norm", "norm"),
}
_BLOCK: Mapping[str, tuple[str, str]] = {
    "attention_norm": ("layer.0.layer_norm", "norm1"),
    "attention.query": ("layer.0.SelfAttention.q", "attn.q"),
    "attention.key": ("layer.0.SelfAttention.k", "attn.k"),
    "attention.value": ("layer.0.SelfAttention.v", "attn.v"),
    "attention.out": ("layer.0.SelfAttention.o", "attn.o"),
    "attention.position_bias": ("layer.0.SelfAttention.relative_attention_bias", "pos_embedding.embedding"),
    "feed_forward_norm": ("layer.1.layer_norm", "norm2"),
    "feed_forward.gate": ("layer.1.DenseReluDense.wi_0", "ffn.gate.0"),
    "feed_forward.linear_in": ("layer.1.DenseReluDense.wi_1", "ffn.fc1"),
    "feed_forward.linear_out": ("layer.1.DenseReluDense.wo", "ffn.fc2"),
}
_QUANTISED = {"matrix": "weight", "matrix_scale": "weight_scale"}
"""Of engine/scaled_linear.py."""


def checkpoint_names(name: str) -> tuple[str, str]:
    """Transformers' name and the official one of a parameter of engine/text_encoder_model.py.

    Raises KeyError for a name that is none.
    """
    module, _, leaf = name.rpartition(".")
    leaf = _QUANTISED.get(leaf, leaf)
    if module in _ROOT:
        transformers, official = _ROOT[module]
        return f"{transformers}.{leaf}", f"{official}.{leaf}"
    blocks, number, rest = module.split(".", 2)
    transformers, official = _BLOCK[rest]
    return f"encoder.block.{number}.{transformers}.{leaf}", f"{blocks}.{number}.{official}.{leaf}"
