"""Attention of a video's tokens to a text: the norm of the queries and softmax attention to few keys, in one pass.

The queries are read once more beforehand, for the root mean square of each row; neither they nor the norm are written.
With the 64 keys of a prompt of 60 tokens what bounds it is memory.
"""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from wan22_inference.engine.kernels.launch import row_shape
from wan22_inference.engine.text_keys import TextKeys

QUERIES, KEYS, WARPS = 64, 32, 4
"""Of a program: queries, keys at a time, and warps."""


@triton.jit
def _row_factors(x_ptr, out_ptr, eps, DIM: tl.constexpr, MAIN: tl.constexpr, REST: tl.constexpr) -> None:
    row = tl.program_id(0).to(tl.int64)
    b = MAIN + tl.arange(0, REST)
    x_a = tl.load(x_ptr + row * DIM + tl.arange(0, MAIN)).to(tl.float32)
    x_b = tl.load(x_ptr + row * DIM + b, b < DIM, 0.0).to(tl.float32)
    tl.store(out_ptr + row, tl.rsqrt((tl.sum(x_a * x_a, 0) + tl.sum(x_b * x_b, 0)) / DIM + eps))


@triton.jit(do_not_specialize=["length", "num_keys"])
def _attend_text(
    x_ptr,
    factor_ptr,
    weight_ptr,
    key_ptr,
    value_ptr,
    out_ptr,
    length,
    num_keys,
    scale,
    bonus,
    HEADS: tl.constexpr,
    HEAD: tl.constexpr,
    QUERIES: tl.constexpr,
    KEYS: tl.constexpr,
) -> None:
    head = tl.program_id(0)  # the fastest, so that neighbours read and write on end
    batch = tl.program_id(2).to(tl.int64)
    channels = tl.arange(0, HEAD)
    row = batch * length + tl.program_id(1) * QUERIES
    inside = tl.arange(0, QUERIES) < length - tl.program_id(1) * QUERIES
    # Places within a program's part fit 32 bits, which takes half the registers
    corner = row * (HEADS * HEAD) + head * HEAD
    places = tl.arange(0, QUERIES)[:, None] * (HEADS * HEAD) + channels[None, :]
    factor = tl.load(factor_ptr + row + tl.arange(0, QUERIES), inside, 0.0)
    q = tl.load(x_ptr + corner + places, inside[:, None], 0.0).to(tl.float32) * factor[:, None]
    q = (q * tl.load(weight_ptr + head * HEAD + channels).to(tl.float32)[None, :]).to(x_ptr.dtype.element_ty)
    first_key = batch * num_keys * (HEADS * HEAD) + head * HEAD
    largest = tl.full((QUERIES,), float("-inf"), tl.float32)
    total = tl.zeros((QUERIES,), tl.float32)
    out = tl.zeros((QUERIES, HEAD), tl.float32)
    first = 0
    while first < num_keys:
        columns = first + tl.arange(0, KEYS)
        known = columns < num_keys
        at = columns[:, None] * (HEADS * HEAD) + channels[None, :]
        key = tl.load(key_ptr + first_key + at, known[:, None], 0.0)
        score = tl.dot(q, tl.trans(key), input_precision="ieee") * scale
        score += tl.where(columns == num_keys - 1, bonus, 0.0)[None, :]
        score = tl.where(known[None, :], score, float("-inf"))
        new = tl.maximum(largest, tl.max(score, 1))
        weights = tl.exp2(score - new[:, None])
        shrunk = tl.exp2(largest - new)
        value = tl.load(value_ptr + first_key + at, known[:, None], 0.0)
        total = total * shrunk + tl.sum(weights, 1)
        out = out * shrunk[:, None] + tl.dot(weights.to(value.dtype), value, input_precision="ieee")
        largest = new
        first += KEYS
    tl.store(out_ptr + corner + places, (out / total[:, None]).to(out_ptr.dtype.element_ty), inside[:, None])


def fits(head: int) -> bool:
    """Whether heads of so many channels can be multiplied by it."""
    return head >= 16 and head & (head - 1) == 0


def attend_text(x: Tensor, weight: Tensor, eps: float, text: TextKeys) -> Tensor:
    """See Operations.attend_text; x (B, L, dim) and the text's keys and values are contiguous."""
    batch, length, dim = x.shape
    _, num_keys, num_heads, head = text.key.shape
    shape = row_shape(dim)
    factors = torch.empty(batch * length, dtype=torch.float32, device=x.device)
    _row_factors[(batch * length,)](
        x.view(-1),  # refuses what is not contiguous
        factors,
        eps,
        DIM=dim,
        MAIN=shape.main,
        REST=shape.rest,
        num_warps=shape.warps,
    )
    out = torch.empty_like(x)
    _attend_text[(num_heads, triton.cdiv(length, QUERIES), batch)](
        x,
        factors,
        weight,
        text.key.view(-1),
        text.value.view(-1),
        out,
        length,
        num_keys,
        head**-0.5 / math.log(2),
        math.log2(text.padding),
        HEADS=num_heads,
        HEAD=head,
        QUERIES=QUERIES,
        KEYS=KEYS,
        num_warps=WARPS,
        num_stages=2,
    )
    return out
