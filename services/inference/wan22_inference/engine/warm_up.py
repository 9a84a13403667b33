"""What a worker's first video would wait for, done while most of the weights are still on their way."""

from __future__ import annotations

import logging

import torch

from wan22.variants import NEGATIVE_PROMPT
from wan22_inference.engine.attention import choose
from wan22_inference.engine.attention8 import choose8
from wan22_inference.engine.operations import operations
from wan22_inference.engine.text import TextEncoder
from wan22_inference.engine.transformer import Transformer

log = logging.getLogger(__name__)


def warm_up(device: torch.device, text_encoder: TextEncoder, transformer: Transformer) -> None:
    """Chooses what computes, which loads its libraries, and encodes the negative prompt that most requests have.

    The transformer may be on the meta device; the text encoder has its weights. On a CPU nothing of it takes long but
    encoding, which is left to the first request. Raises what the tokenizer raises.
    """
    if device.type != "cuda":
        return
    operations(device)
    head_dim = transformer.config.head_dim
    choose(device, transformer.dtype, head_dim)
    if transformer.attention8:
        choose8(device, head_dim)
    if not text_encoder.at_hand:
        return
    try:
        text_encoder.encode({"negative_prompt": NEGATIVE_PROMPT})
    except torch.OutOfMemoryError as error:
        log.info("The default negative prompt was not encoded in advance (%s).", str(error).partition("\n")[0])
