"""The text encoder: a small UMT5, learnt together with the t2v experts, and what it makes of captions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from tools.train_tiny.run import Run, store
from torch import Tensor, nn
from transformers import UMT5EncoderModel

from wan22.variants import MAX_PROMPT_TOKENS, NEGATIVE_PROMPT
from wan22_testing import tiny_tokenizer
from wan22_testing.tiny_models import new_text_encoder


class Text:
    """Captions to embeddings, padded with zeros to 512 tokens as WAN2.2 has them."""

    DIM = 64

    def __init__(self, run: Run, *, trained: bool = False) -> None:
        self._run = run
        self._tokenizer = tiny_tokenizer.build()
        self._folder = run.out / "text_encoder"
        found = UMT5EncoderModel.from_pretrained(self._folder) if self._folder.exists() else self._new()
        self._encoder = found.float().to(run.device).requires_grad_(trained)
        self.learning: tuple[nn.Module, ...] = (self._encoder,) if trained else ()
        """What is to be trained."""
        unprompted = [self._tokenizer.encode(prompt).ids for prompt in ("", NEGATIVE_PROMPT)]
        self._unprompted = self._table(unprompted)

    def _new(self) -> UMT5EncoderModel:
        vocabulary = self._tokenizer.get_vocab_size()
        return new_text_encoder(vocabulary, d_model=self.DIM, d_kv=16, d_ff=128, dropout_rate=0.0)

    def tokens(self, captions: Sequence[str]) -> Tensor:
        """(captions, 48), zero where there is nothing."""
        return self._table([self._tokenizer.encode(one).ids for one in captions], width=48)

    def embed(self, tokens: Tensor, *, dropped: float = 0.0) -> Tensor:
        """(captions, 512, DIM); a share of them as if nothing, or the official negative prompt, had been said."""
        whole = self._encode(tokens)
        if dropped:
            instead = self._encode(self._unprompted)
            drawn = torch.rand(len(tokens), generator=self._run.generator, device=tokens.device)
            which = (drawn * len(instead) / dropped).long().clamp(max=len(instead) - 1)
            whole = torch.where((drawn < dropped)[:, None, None], instead[which], whole)
        return whole

    def save(self, averages: Sequence[nn.Module]) -> None:
        """Writes the encoder as bf16, if it is one of what was trained."""
        for average in averages:
            store(UMT5EncoderModel(self._encoder.config), average, self._folder)

    def _encode(self, tokens: Tensor) -> Tensor:
        there = (tokens != 0).long()
        out: Tensor = self._encoder(input_ids=tokens, attention_mask=there).last_hidden_state
        out = out * there[..., None]
        return nn.functional.pad(out, (0, 0, 0, MAX_PROMPT_TOKENS - out.shape[1]))

    def _table(self, rows: Sequence[Sequence[int]], width: int | None = None) -> Tensor:
        width = width or max(len(row) for row in rows)
        return torch.tensor([[*row, *[0] * (width - len(row))] for row in rows], device=self._run.device)
