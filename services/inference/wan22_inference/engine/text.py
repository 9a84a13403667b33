"""The text encoder: prompts to embeddings, cleaned and padded as the official pipeline does it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from tokenizers import Tokenizer
from torch import Tensor
from transformers import UMT5EncoderModel

from wan22.errors import InvalidRequest
from wan22.prompts import clean
from wan22.variants import MAX_PROMPT_TOKENS


@dataclass(frozen=True)
class TextEncoder:
    """UMT5 and its tokenizer."""

    tokenizer: Tokenizer
    module: UMT5EncoderModel

    def encode(self, text: str, field: str) -> Tensor:
        """(1, 512, dim) embeddings of a text; zero past its end token, since padding is not masked in the DiT.

        Raises InvalidRequest naming `field` for a text of more than 512 tokens. Source: wan/modules/t5.py.
        """
        ids = self.tokenizer.encode(clean(text)).ids
        if len(ids) > MAX_PROMPT_TOKENS:
            raise InvalidRequest(
                f"{field} has {len(ids)} tokens, the end token counted: use at most {MAX_PROMPT_TOKENS}.",
                field=f"parameters.{field}",
            )
        padding = MAX_PROMPT_TOKENS - len(ids)
        device = self.module.device
        tokens = torch.tensor([ids + [self.module.config.pad_token_id] * padding], device=device)
        mask = torch.tensor([[1] * len(ids) + [0] * padding], device=device)
        embeddings: Tensor = self.module(input_ids=tokens, attention_mask=mask).last_hidden_state
        return embeddings * mask.unsqueeze(2).to(embeddings.dtype)
