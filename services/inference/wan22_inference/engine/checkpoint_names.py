"""The names that checkpoints use for the DiT's parameters: diffusers' and the official repository's.

Sources: WanTransformer3DModel of diffusers; wan/modules/model.py of Wan-Video/Wan2.2.
"""

from __future__ import annotations

from collections.abc import Mapping

_ROOT: Mapping[str, tuple[str, str]] = {
    "patch_embedding": ("patch_embedding", "patch_embedding"),
    "time_embedding.linear_in": ("condition_embedder.time_embedder.linear_1", "time_embedding.0"),
    "time_embedding.linear_out": ("condition_embedder.time_embedder.linear_2", "time_embedding.2"),
    "time_embedding.projection": ("condition_embedder.time_proj", "time_projection.1"),
    "text_embedding.linear_in": ("condition_embedder.text_embedder.linear_1", "text_embedding.0"),
    "text_embedding.linear_out": ("condition_embedder.text_embedder.linear_2", "text_embedding.2"),
    "head.modulation": ("scale_shift_table", "head.modulation"),
    "head.linear": ("proj_out", "head.head"),
}
_BLOCK: Mapping[str, tuple[str, str]] = {
    "modulation": ("scale_shift_table", "modulation"),
    "self_attention.query": ("attn1.to_q", "self_attn.q"),
    "self_attention.key": ("attn1.to_k", "self_attn.k"),
    "self_attention.value": ("attn1.to_v", "self_attn.v"),
    "self_attention.out": ("attn1.to_out.0", "self_attn.o"),
    "self_attention.query_norm": ("attn1.norm_q", "self_attn.norm_q"),
    "self_attention.key_norm": ("attn1.norm_k", "self_attn.norm_k"),
    "cross_norm": ("norm2", "norm3"),  # the official norms 1 and 2 and diffusers' 1 and 3 have no parameters
    "cross_attention.query": ("attn2.to_q", "cross_attn.q"),
    "cross_attention.key": ("attn2.to_k", "cross_attn.k"),
    "cross_attention.value": ("attn2.to_v", "cross_attn.v"),
    "cross_attention.out": ("attn2.to_out.0", "cross_attn.o"),
    "cross_attention.query_norm": ("attn2.norm_q", "cross_attn.norm_q"),
    "cross_attention.key_norm": ("attn2.norm_k", "cross_attn.norm_k"),
    "feed_forward.linear_in": ("ffn.net.0.proj", "ffn.0"),
    "feed_forward.linear_out": ("ffn.net.2", "ffn.2"),
}


def checkpoint_names(name: str) -> tuple[str, str]:
    """Diffusers' name and the official one of a module or parameter of engine/transformer.py.

    Raises KeyError for a name that is none.
    """
    table, prefix, rest = _ROOT, "", name
    if name.startswith("blocks."):
        _, number, rest = name.split(".", 2)
        table, prefix = _BLOCK, f"blocks.{number}."
    if rest in table:
        diffusers, official = table[rest]
        return prefix + diffusers, prefix + official
    module, _, leaf = rest.rpartition(".")
    diffusers, official = table[module]
    return f"{prefix}{diffusers}.{leaf}", f"{prefix}{official}.{leaf}"
