"""Tokens of prompts, in this process and by another one: the same."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tokenizers import Tokenizer as Unigram

from wan22.errors import FailedPrecondition, InternalError, Reason
from wan22.tokenizer.local import LocalTokenizer
from wan22.tokenizer.process import TokenizerProcess
from wan22.tokenizer.tokenizer import LARGE_BYTES, Tokenizer, open_tokenizer
from wan22_testing import tiny_tokenizer

Kind = Callable[[Path], Tokenizer]
TEXTS = ("", "a cat", "  a  cat &amp;amp;\n a dog ", "色调艳丽 🐈", "a " * 700)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "tokenizer.json"
    tiny_tokenizer.build().save(str(file))
    return file


@pytest.mark.parametrize("text", TEXTS)
def test_both_give_the_tokens_of_the_cleaned_text(path: Path, text: str) -> None:
    own, process = LocalTokenizer.read(path), TokenizerProcess(path)
    assert own.ids(text) == process.ids(text)
    assert (own.last_token, process.last_token) == ("</s>", "</s>")
    assert own.ids(text)[-1] == tiny_tokenizer.SPECIAL.index(tiny_tokenizer.END)


@pytest.mark.parametrize("kind", [LocalTokenizer.read, TokenizerProcess])
def test_a_file_that_cuts_and_pads_does_neither_here(path: Path, kind: Kind) -> None:
    tokenizer = Unigram.from_file(str(path))
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=8)
    tokenizer.save(str(path))
    found = kind(path)
    assert [len(found.ids(text)) for text in ("a", "a cat and a dog")] == [2, 6]


def test_a_large_one_is_read_by_a_process_and_a_small_one_here(path: Path) -> None:
    assert not open_tokenizer(path).waits
    tiny_tokenizer.build(unused=40_000).save(str(path))
    assert path.stat().st_size > LARGE_BYTES
    large = open_tokenizer(path)
    assert large.waits
    assert large.ids("a cat") == LocalTokenizer(tiny_tokenizer.build()).ids("a cat")


@pytest.mark.parametrize("kind", [LocalTokenizer.read, TokenizerProcess])
@pytest.mark.parametrize("content", ["", "{}", "\0", '{"model": {"type": "Unigram", "vocab": [], "unk_id": 4}}'])
def test_a_file_that_is_none_is_refused(path: Path, kind: Kind, content: str) -> None:
    path.write_text(content)
    with pytest.raises(FailedPrecondition, match=r"tokenizer\.json cannot be read") as caught:
        _ = kind(path).last_token
    assert caught.value.reason is Reason.MODEL_MISFIT


def test_a_process_that_was_killed_is_replaced(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tokenizer = TokenizerProcess(path)
    before, first = tokenizer.ids("a cat"), tokenizer.pid
    os.kill(first, signal.SIGKILL)
    assert tokenizer.ids("a cat") == before
    assert tokenizer.pid != first
    assert "has ended" in caplog.text


def test_another_process_that_cannot_read_the_file_says_so(path: Path) -> None:
    tokenizer = TokenizerProcess(path)
    assert tokenizer.last_token
    path.unlink()
    os.kill(tokenizer.pid, signal.SIGKILL)
    with pytest.raises(FailedPrecondition, match="cannot be read"):
        tokenizer.ids("a cat")


def test_one_that_does_not_answer_is_ended_and_the_next_text_has_its_own_answer(path: Path) -> None:
    tokenizer = TokenizerProcess(path, answer_seconds=0.2)
    expected = tokenizer.ids("a dog")
    os.kill(tokenizer.pid, signal.SIGSTOP)
    with pytest.raises(InternalError, match=r"did not answer for 0\.2 s"):
        tokenizer.ids("a cat")
    assert tokenizer.ids("a dog") == expected


def test_texts_of_many_threads_have_their_own_answers(path: Path) -> None:
    own, process = LocalTokenizer.read(path), TokenizerProcess(path)
    texts = [f"a cat {number} dogs" for number in range(200)]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(process.ids, texts)) == [own.ids(text) for text in texts]


def test_the_process_ends_with_its_object(path: Path) -> None:
    tokenizer = TokenizerProcess(path)
    pid = tokenizer.pid
    assert tokenizer.last_token
    del tokenizer
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
