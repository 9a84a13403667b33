"""The text encoder: prompts to embeddings, cleaned and padded as the official pipeline does it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext

import torch
from torch import Tensor

from wan22.errors import InvalidRequest
from wan22.tokenizer.tokenizer import Tokenizer
from wan22.variants import MAX_PROMPT_TOKENS
from wan22_inference.engine.embedding_cache import EmbeddingCache, Tokens
from wan22_inference.engine.host_copy import HostCopy
from wan22_inference.engine.options import EngineOptions, TextEncoderPlace
from wan22_inference.engine.text_encoder_model import TextEncoderModel


def cut(tokens: tuple[int, ...]) -> tuple[int, ...]:
    """The first tokens and the end token, 512 in all, of a text that has more; else the text.

    As the official tokenizer wrapper does it, silently; here only on the request's own wish.
    """
    if len(tokens) <= MAX_PROMPT_TOKENS:
        return tokens
    return (*tokens[: MAX_PROMPT_TOKENS - 1], tokens[-1])


class TextEncoder:
    """UMT5 and its tokenizer."""

    def __init__(
        self, tokenizer: Tokenizer, module: TextEncoderModel, device: torch.device, options: EngineOptions
    ) -> None:
        """`device` is where embeddings are wanted; `options` say where the module's weights are to be."""
        self._tokenizer = tokenizer
        self.module = module
        self._device = device
        self._computes_on = torch.device("cpu") if options.text_encoder is TextEncoderPlace.CPU else device
        self._host = HostCopy(module, device) if options.text_encoder is TextEncoderPlace.HOST else None
        self._cache = EmbeddingCache(options.embedding_cache_bytes)

    @property
    def at_hand(self) -> bool:
        """Whether texts are encoded at once, where embeddings are wanted."""
        return self._host is None and self._computes_on == self._device

    def encode(self, texts: Mapping[str, str], *, may_cut: bool = False) -> dict[str, Tensor]:
        """(1, 512, dim) embeddings of each text, by field; zero past its end token: padding is not masked in the DiT.

        Raises InvalidRequest naming the field of a text of more than 512 tokens, unless it may be cut to them.
        Source: wan/modules/t5.py.
        """
        tokens = {field: self._tokenize(field, text, may_cut=may_cut) for field, text in texts.items()}
        embeddings = {one: kept for one in tokens.values() if (kept := self._cache.get(one)) is not None}
        missing = [one for one in dict.fromkeys(tokens.values()) if one not in embeddings]
        if missing:
            with nullcontext() if self._host is None else self._host.visit():
                for one in missing:
                    embeddings[one] = self._compute(one)
                    self._cache.put(one, embeddings[one])
        return {field: self._padded(embeddings[one]) for field, one in tokens.items()}

    def _tokenize(self, field: str, text: str, *, may_cut: bool) -> Tokens:
        ids = self._tokenizer.ids(text)
        if len(ids) > MAX_PROMPT_TOKENS and not may_cut:
            raise InvalidRequest(
                f"{field} has {len(ids)} tokens, the end token counted: use at most {MAX_PROMPT_TOKENS}.",
                field=f"parameters.{field}",
            )
        return cut(ids)

    def _compute(self, tokens: Tokens) -> Tensor:
        """(tokens, dim) on the CPU."""
        padding = [self.module.config.pad_token] * (MAX_PROMPT_TOKENS - len(tokens))
        out: Tensor = self.module(torch.tensor([[*tokens, *padding]], device=self._computes_on), len(tokens))
        return out[0, : len(tokens)].to("cpu", copy=True)

    def _padded(self, embeddings: Tensor) -> Tensor:
        count, dim = embeddings.shape
        whole = torch.zeros(1, MAX_PROMPT_TOKENS, dim, dtype=embeddings.dtype, device=self._device)
        whole[0, :count] = embeddings.to(self._device)
        return whole
