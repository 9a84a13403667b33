from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from wan22.variants import NEGATIVE_PROMPT
from wan22_testing import tiny_tokenizer
from wan22_testing.tiny_models import TINY_VARIANTS, shared_folder


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_another_process_makes_the_same_bytes(tmp_path: Path) -> None:
    make_all = f"""
from pathlib import Path
from wan22_testing.tiny_models import TINY_VARIANTS, make

for variant in TINY_VARIANTS:
    make(variant, Path({str(tmp_path)!r}) / variant)
"""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "5"}
    subprocess.run([sys.executable, "-c", make_all], check=True, env=environment)
    for variant in TINY_VARIANTS:
        made = digests(tmp_path / variant)
        assert made == digests(shared_folder(variant))
        assert all(name.endswith((".json", ".safetensors")) for name in made)


def test_the_shared_folder_is_made_once() -> None:
    folder = shared_folder("t2v-a14b-tiny")
    before = (folder / "model_index.json").stat().st_mtime_ns
    assert shared_folder("t2v-a14b-tiny") == folder
    assert (folder / "model_index.json").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("", 1),
        ("a cat", 3),
        ("a cat walking on the beach", 7),
        ("猫", 3),
        ("猫" * 10, 12),
        ("😀", 6),
        (NEGATIVE_PROMPT, 141),
    ],
)
def test_texts_have_sensible_lengths(text: str, count: int) -> None:
    tokens = tiny_tokenizer.build().encode(text).tokens
    assert tokens[-1] == "</s>"
    assert "<unk>" not in tokens
    assert len(tokens) == count


@pytest.mark.parametrize("text", ["a cat on a beach", "naïve café, 100 %", "猫が走る", "👩‍🚀 in space"])
def test_any_text_survives_its_tokens(text: str) -> None:
    tokenizer = tiny_tokenizer.build()
    assert tokenizer.decode(tokenizer.encode(text).ids) == text
