"""Prompts counted by the tokenizers of model versions that are in the gateway's folder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from wan22.errors import FailedPrecondition, Reason
from wan22_gateway.prompt_length import PromptLengths
from wan22_testing import tiny_tokenizer

LONG = "a " * 600
UNUSED = 40_000
"""Pieces that make a tokenizer large enough for a process of its own."""


def version(number: int) -> str:
    return f"models/t2v/versions/sha256:{number:064x}"


def put(folder: Path, number: int, *, unused: int = 0) -> None:
    folder.mkdir(exist_ok=True)
    tiny_tokenizer.build(unused).save(str(folder / f"{number:064x}.json"))


def tokenizer_processes() -> int:
    """This process's children that are such."""
    children = (path.read_text().split() for path in Path("/proc/self/task").glob("*/children"))
    commands = (Path("/proc", pid, "cmdline").read_bytes() for found in children for pid in found)
    return sum(b"wan22.tokenizer" in command for command in commands)


@pytest.mark.parametrize("unused", [0, UNUSED])
async def test_texts_of_more_than_512_tokens_are_told_with_their_tokens(tmp_path: Path, unused: int) -> None:
    put(tmp_path, 1, unused=unused)
    lengths = PromptLengths(tmp_path, "localhost:1")
    texts = {"prompt": LONG, "negative_prompt": "a cat"}
    assert await lengths.too_long(version(1), texts) == {"prompt": 601}
    assert await lengths.too_long(version(1), texts) == {"prompt": 601}  # as it was counted before


async def test_versions_with_the_same_tokenizer_share_its_process(tmp_path: Path) -> None:
    before = tokenizer_processes()
    for number in (1, 2):
        put(tmp_path, number, unused=UNUSED)
    put(tmp_path, 3, unused=UNUSED + 1)
    lengths = PromptLengths(tmp_path, "localhost:1")
    for number, more in ((1, 1), (2, 1), (3, 2)):
        assert await lengths.too_long(version(number), {"prompt": LONG}) == {"prompt": 601}
        assert tokenizer_processes() == before + more


@pytest.mark.parametrize("size", [0, 2 << 20])
async def test_a_tokenizer_that_cannot_be_read_is_the_models_fault(tmp_path: Path, size: int) -> None:
    (tmp_path / f"{1:064x}.json").write_bytes(os.urandom(size))
    lengths = PromptLengths(tmp_path, "localhost:1")
    with pytest.raises(FailedPrecondition, match=r"tokenizer\.json cannot be read") as caught:
        await lengths.prepare(version(1))
    assert caught.value.reason is Reason.MODEL_MISFIT
