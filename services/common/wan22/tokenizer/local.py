"""A tokenizer in this process."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from tokenizers import Tokenizer as Unigram

from wan22.errors import FailedPrecondition, Reason
from wan22.prompts import clean


class LocalTokenizer:
    """Computes in the caller's thread, a tenth of a millisecond a text."""

    waits = False

    def __init__(self, tokenizer: Unigram) -> None:
        tokenizer.no_truncation()  # a file may carry either; both would hide the true length
        tokenizer.no_padding()
        self._tokenizer = tokenizer
        self.last_token: str = next(iter(tokenizer.encode("a").tokens[-1:]), "")

    @classmethod
    def read(cls, path: Path) -> Self:
        """That of a file. Raises FailedPrecondition (MODEL_MISFIT) when it cannot be read."""
        try:
            return cls(Unigram.from_file(str(path)))
        except Exception as error:  # the library has no class of its own for what is wrong with a file
            text = f"The model's tokenizer.json cannot be read ({error}): push a complete model."
            raise FailedPrecondition(text, reason=Reason.MODEL_MISFIT) from error

    def ids(self, text: str) -> tuple[int, ...]:
        """The tokens of a text."""
        return tuple(self._tokenizer.encode(clean(text)).ids)
