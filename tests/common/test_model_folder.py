from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from wan22.errors import InvalidRequest, Reason
from wan22.model_folder import infer_variant, read_model_folder
from wan22.variants import VARIANTS, Variant
from wan22_testing.sizes import random_variant
from wan22_testing.tiny_models import TINY_VARIANTS


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    put(folder, "model_index.json", "vae/config.json", "vae/diffusion_pytorch_model.safetensors")
    return folder


def put(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")


def names(folder: Path, paths: tuple[Path, ...]) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in paths]


def test_safetensors_and_json_enter_and_texts_are_left_out(folder: Path) -> None:
    put(folder, "README.md", "LICENSE", "tokenizer/merges.txt", ".gitattributes", ".cache/huggingface/w.metadata")
    put(folder, "tokenizer/tokenizer.json", "tokenizer/spiece.model")
    found = read_model_folder(folder)
    assert list(found.files) == [
        "model_index.json",
        "tokenizer/tokenizer.json",
        "vae/config.json",
        "vae/diffusion_pytorch_model.safetensors",
    ]
    assert names(folder, found.left_out) == [
        ".cache/huggingface/w.metadata",
        ".gitattributes",
        "LICENSE",
        "README.md",
        "tokenizer/merges.txt",
        "tokenizer/spiece.model",
    ]


@pytest.mark.parametrize("name", ["pytorch_model.bin", "a.pt", "t5.pth", "x.ckpt", "deep/er/X.PTH"])
def test_a_pickle_is_refused_by_name(folder: Path, name: str) -> None:
    put(folder, name)
    with pytest.raises(InvalidRequest, match="pickle") as caught:
        read_model_folder(folder)
    assert str(folder / name) in caught.value.message
    assert caught.value.reason is Reason.FORBIDDEN_FILE


@pytest.mark.parametrize("name", ["model.gguf", "run.py", "tokenizer/spiece.model"])
def test_other_kinds_are_refused_by_name(folder: Path, name: str) -> None:
    put(folder, name)
    with pytest.raises(InvalidRequest, match="neither safetensors nor JSON") as caught:
        read_model_folder(folder)
    assert str(folder / name) in caught.value.message


def test_links_to_files_are_followed_and_others_are_refused(folder: Path, tmp_path: Path) -> None:
    put(tmp_path, "blob")
    (folder / "linked.json").symlink_to(tmp_path / "blob")
    assert "linked.json" in read_model_folder(folder).files
    (folder / "gone.json").symlink_to(tmp_path / "nothing")
    with pytest.raises(InvalidRequest, match=r"gone\.json is no file, or a link to nothing"):
        read_model_folder(folder)
    (folder / "gone.json").unlink()
    (folder / "vae2").symlink_to(folder / "vae")
    with pytest.raises(InvalidRequest, match="vae2 is a link to a folder"):
        read_model_folder(folder)


def test_a_pickle_says_how_to_convert_it_and_is_left_out_once_it_is(folder: Path) -> None:
    put(folder, "vae/Wan.pth")
    with pytest.raises(InvalidRequest, match=r"`wan22 models convert-pth .*/vae/Wan\.pth .*/vae/Wan\.safetensors`"):
        read_model_folder(folder)
    put(folder, "vae/Wan.safetensors")
    assert names(folder, read_model_folder(folder).left_out) == ["vae/Wan.pth"]


def test_a_folder_of_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match=r"neither model_index\.json"):
        read_model_folder(tmp_path)


def configure(folder: Path, variant: Variant, *, experts: int) -> None:
    config = {
        "num_attention_heads": variant.dim // 16,
        "attention_head_dim": 16,
        **{name: getattr(variant, name) for name in ("in_channels", "num_layers", "ffn_dim")},
    }
    for name in ("transformer", "transformer_2")[:experts]:
        put(folder, f"{name}/config.json")
        (folder / name / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize("name", ["t2v-a14b-tiny", "i2v-a14b-tiny", "ti2v-5b-tiny", "ti2v-5b"])
def test_the_variant_shows_in_the_transformers(folder: Path, name: str) -> None:
    configure(folder, VARIANTS[name], experts=VARIANTS[name].experts)
    assert infer_variant(folder) == name


@pytest.mark.parametrize("name", TINY_VARIANTS)
def test_a_small_variant_shows_whatever_its_sizes(folder: Path, name: str) -> None:
    configure(folder, random_variant(name), experts=VARIANTS[name].experts)
    assert infer_variant(folder) == name
    configure(folder, replace(random_variant(name), dim=1024), experts=VARIANTS[name].experts)
    with pytest.raises(InvalidRequest, match="which is no variant's"):
        infer_variant(folder)


@pytest.mark.parametrize(("name", "in_channels"), [("t2v-a14b", 16), ("i2v-a14b", 36)])
def test_the_official_configurations_are_told_apart(folder: Path, name: str, in_channels: int) -> None:
    config = {"num_attention_heads": 40, "attention_head_dim": 128, "num_layers": 40, "ffn_dim": 13824}
    for expert in ("transformer", "transformer_2"):
        put(folder, f"{expert}/config.json")
        (folder / expert / "config.json").write_text(json.dumps({**config, "in_channels": in_channels}))
    assert infer_variant(folder) == name


def test_a_model_with_one_expert_of_two_is_no_variant(folder: Path) -> None:
    configure(folder, VARIANTS["t2v-a14b-tiny"], experts=1)
    with pytest.raises(InvalidRequest, match=r"1 transformer.*num_layers 5.*Pass --variant, one of t2v-a14b"):
        infer_variant(folder)


@pytest.mark.parametrize("content", ["{", "[]", '{"in_channels": "many"}', "\ufeff"])
def test_an_unreadable_configuration_asks_for_the_variant(folder: Path, content: str) -> None:
    with pytest.raises(InvalidRequest, match=r"config\.json is not there.*Pass --variant"):
        infer_variant(folder)
    put(folder, "transformer/config.json")
    (folder / "transformer" / "config.json").write_text(content)
    with pytest.raises(InvalidRequest, match="Pass --variant") as caught:
        infer_variant(folder)
    assert [violation.field for violation in caught.value.violations] == ["variant"]
