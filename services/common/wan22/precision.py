"""Which float32 weights a registry keeps as bfloat16: those that the model runs so anyway."""

from __future__ import annotations

from wan22.variants import Variant

CAST_COMPONENTS = ("transformer/", "transformer_2/", "text_encoder/")
"""The VAE runs in float32."""
KEPT = (
    # diffusers' names
    *("condition_embedder.time_embedder.", "condition_embedder.time_proj.", "scale_shift_table", ".norm2."),
    # the official repository's
    *("time_embedding.", "time_projection.", "modulation", ".norm3."),
)
"""Parts of the names of transformer weights that run in float32: time embedding, modulation, cross-attention's norm."""


def runs_in_bfloat16(variant: Variant, path: str, tensor: str) -> bool:
    """Whether a weight of a file of a model is used as bfloat16 and nothing more.

    Tiny variants run on CPUs, in float32 throughout.
    """
    if variant.name.endswith("-tiny") or not path.startswith(CAST_COMPONENTS):
        return False
    return path.startswith("text_encoder/") or not any(part in tensor for part in KEPT)
