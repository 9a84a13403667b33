"""Prompt cleaning, as the official tokenizer wrapper does it before the text encoder sees anything."""

from __future__ import annotations

import html
import re

import ftfy

from wan22.variants import MAX_PROMPT_TOKENS


def clean(text: str) -> str:
    """Repairs mojibake, resolves HTML entities twice and folds white space (`whitespace_clean(basic_clean(text))`).

    Source: wan/modules/tokenizers.py of the official repository.
    """
    repaired = html.unescape(html.unescape(ftfy.fix_text(text))).strip()
    return re.sub(r"\s+", " ", repaired).strip()


def cut(tokens: tuple[int, ...]) -> tuple[int, ...]:
    """The first tokens and the end token, 512 in all, of a text that has more; else the text.

    As the official tokenizer wrapper does it, silently; here only on the request's own wish.
    """
    if len(tokens) <= MAX_PROMPT_TOKENS:
        return tokens
    return (*tokens[: MAX_PROMPT_TOKENS - 1], tokens[-1])
