"""The names that checkpoints use for the text encoder's parameters: transformers' and the official repository's.

Sources: UMT5EncoderModel of transformers; T5Encoder in wan/modules/t5.py of Wan-Video/Wan2.2.
"""

from __future__ import annotations

from collections.abc import Mapping

_ROOT: Mapping[str, str] = {"shared": "token_embedding", "encoder.final_layer_norm": "norm"}
_BLOCK: Mapping[str, str] = {
    **{f"layer.0.SelfAttention.{part}": f"attn.{part}" for part in ("q", "k", "v", "o")},
    "layer.0.SelfAttention.relative_attention_bias": "pos_embedding.embedding",
    "layer.0.layer_norm": "norm1",
    "layer.1.DenseReluDense.wi_0": "ffn.gate.0",
    "layer.1.DenseReluDense.wi_1": "ffn.fc1",
    "layer.1.DenseReluDense.wo": "ffn.fc2",
    "layer.1.layer_norm": "norm2",
}
_QUANTISED = {"matrix": "weight", "matrix_scale": "weight_scale"}
"""Of engine/scaled_linear.py."""


def checkpoint_names(name: str) -> tuple[str, ...]:
    """Transformers' name, which is the module's own but of quantised matrices, and the official one if there is one."""
    module, _, leaf = name.rpartition(".")
    if leaf in _QUANTISED:
        name = f"{module}.{_QUANTISED[leaf]}"
    module, _, leaf = name.rpartition(".")
    if module in _ROOT:
        return name, f"{_ROOT[module]}.{leaf}"
    if module.startswith("encoder.block."):
        _, _, number, rest = module.split(".", 3)
        return name, f"blocks.{number}.{_BLOCK[rest]}.{leaf}"
    return (name,)
