"""In which precision a registry keeps the weights of a model."""

from __future__ import annotations

import re
from typing import Literal, get_args

from wan22.errors import InvalidRequest
from wan22.variants import VARIANTS, Variant

Precision = Literal["bf16", "fp8"]
"""`bf16`: what the model runs in bfloat16 is kept so. `fp8`: the matrices of the linear layers of the transformers'
blocks but the first two and of the text encoder are kept as float8 with a scale a row; all else as with `bf16`."""
CAST_COMPONENTS = ("transformer/", "transformer_2/", "text_encoder/")
"""The VAE runs in float32."""
KEPT = (
    # diffusers' names
    *("condition_embedder.time_embedder.", "condition_embedder.time_proj.", "scale_shift_table", ".norm2."),
    # the official repository's
    *("time_embedding.", "time_projection.", "modulation", ".norm3."),
)
"""Parts of the names of transformer weights that run in float32: time embedding, modulation, cross-attention's norm."""
_LINEAR = {
    "transformer": re.compile(
        r"blocks\.(?P<block>\d+)\.(?:attn[12]\.to_(?:q|k|v|out\.0)|(?:self|cross)_attn\.[qkvo]|ffn\.(?:net\.0\.proj|net\.2|0|2))"
        r"\.weight"
    ),
    "text_encoder": re.compile(
        r"(?:encoder\.block\.\d+\.layer\.[01]\.(?:SelfAttention\.[qkvo]|DenseReluDense\.w(?:i_0|i_1|o))"
        r"|blocks\.\d+\.(?:attn\.[qkvo]|ffn\.(?:gate\.0|fc1|fc2)))\.weight"
    ),
}
"""Names of the matrices that `fp8` quantises, diffusers' or transformers' and the official repository's; of a
transformer's first blocks it does not."""


def check_precision(value: str) -> Precision:
    """The value, if it is a precision, else raises InvalidRequest."""
    for precision in get_args(Precision):
        if value == precision:
            return precision  # type: ignore[no-any-return]  # one of the literals
    text = f"precision is {value!r}: use {' or '.join(get_args(Precision))}."
    raise InvalidRequest(text, field="precision")


def default_tags(variant: str, precision: Precision) -> list[str]:
    """Tags of an import that names none: a precision's own, and `latest` for what no quantisation has touched."""
    if precision == "fp8":
        return ["fp8"]
    return ["latest"] if VARIANTS[variant].small else ["latest", "bf16"]  # small ones stay in float32


def runs_in_bfloat16(variant: Variant, path: str, tensor: str) -> bool:
    """Whether a weight of a file of a model is used as bfloat16 and nothing more.

    Small variants run on CPUs, in float32 throughout.
    """
    if variant.small or not path.startswith(CAST_COMPONENTS):
        return False
    return path.startswith("text_encoder/") or not any(part in tensor for part in KEPT)


def is_quantised(variant: Variant, path: str, tensor: str) -> bool:
    """Whether `fp8` keeps a weight of a file of a model as float8."""
    component = path.partition("/")[0]
    pattern = _LINEAR.get("transformer" if component == "transformer_2" else component)
    match = None if pattern is None else pattern.fullmatch(tensor)
    return match is not None and int(match.groupdict().get("block", variant.exact_blocks)) >= variant.exact_blocks
