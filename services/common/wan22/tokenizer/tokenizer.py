"""What a tokenizer does, and where it does it."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from wan22.tokenizer.process import TokenizerProcess

TOKENIZER_FILE = "tokenizer/tokenizer.json"
"""Within a model."""
LARGE_BYTES = 1 << 20
"""Of tokenizer.json. UMT5's has 17 MB, whose reading holds Python's lock for a second and more."""


class Tokenizer(Protocol):
    """Tells the tokens of prompts; for any thread."""

    @property
    def waits(self) -> bool:
        """Whether its answers come from elsewhere: not to be asked for on an event loop."""
        ...

    @property
    def last_token(self) -> str:
        """What each text ends with. Waits until the tokenizer is there.

        Raises FailedPrecondition (MODEL_MISFIT) when its file cannot be read.
        """
        ...

    def ids(self, text: str) -> tuple[int, ...]:
        """The tokens of a text, cleaned as `wan22.prompts` says, none cut off and none added for padding.

        Raises as `last_token`, and InternalError where it cannot be had.
        """
        ...


def open_tokenizer(path: Path) -> Tokenizer:
    """That of a tokenizer.json: read here where it is small, else by a process of its own, for which nobody waits."""
    if path.stat().st_size > LARGE_BYTES:
        return TokenizerProcess(path)
    from wan22.tokenizer.local import LocalTokenizer  # noqa: PLC0415  # ftfy and tokenizers: a quarter of a second

    return LocalTokenizer.read(path)
