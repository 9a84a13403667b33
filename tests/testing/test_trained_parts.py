from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from wan22_testing import trained_parts
from wan22_testing.trained_parts import MAKERS, PACKAGE, sources_digest

T2V, I2V, TI2V = "t2v-a14b-tiny", "i2v-a14b-tiny", "ti2v-5b-tiny"


@pytest.mark.parametrize(
    ("part", "touched"),
    [
        ("weights/t2v-a14b-tiny/transformer_2/config.json", {T2V}),
        ("weights/vae21/diffusion_pytorch_model.safetensors", {T2V, I2V}),
        ("weights/text_encoder/model.safetensors", {T2V, I2V, TI2V}),
        ("weights/turbo/high/adapter.json", {T2V}),
        ("tiny_tokenizer.py", {T2V, I2V, TI2V}),
    ],
)
def test_the_sources_digest_is_another_one_for_the_models_that_a_part_goes_into(
    part: str, touched: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {variant: sources_digest(variant) for variant in (T2V, I2V, TI2V)}
    shutil.copytree(PACKAGE / "weights", tmp_path / "weights")
    for name in MAKERS:
        shutil.copy(PACKAGE / name, tmp_path / name)
    monkeypatch.setattr(trained_parts, "PACKAGE", tmp_path)
    for name in ("FOLDER", "VAE_21", "VAE_22"):
        monkeypatch.setattr(trained_parts, name, tmp_path / getattr(trained_parts, name).relative_to(PACKAGE))
    assert {variant: sources_digest(variant) for variant in before} == before
    with (tmp_path / part).open("ab") as file:
        file.write(b"\n")
    after = {variant: sources_digest(variant) for variant in before}
    assert {variant for variant in before if after[variant] != before[variant]} == touched
