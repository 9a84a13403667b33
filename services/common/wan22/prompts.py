"""Prompt cleaning, as the official tokenizer wrapper does it before the text encoder sees anything."""

from __future__ import annotations

import html
import re

import ftfy


def clean(text: str) -> str:
    """Repairs mojibake, resolves HTML entities twice and folds white space (`whitespace_clean(basic_clean(text))`).

    Source: wan/modules/tokenizers.py of the official repository.
    """
    repaired = html.unescape(html.unescape(ftfy.fix_text(text))).strip()
    return re.sub(r"\s+", " ", repaired).strip()
