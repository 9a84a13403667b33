from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from wan22.errors import DataLoss, FailedPrecondition, Reason
from wan22.pack.writer import pack_file
from wan22.variants import VARIANTS
from wan22_inference.engine.checkpoint_names import checkpoint_names
from wan22_inference.engine.components import empty_transformer, fill_transformer
from wan22_inference.engine.linear import Fp8Linear
from wan22_inference.engine.loading.loader import WeightLoader
from wan22_inference.engine.model import Model
from wan22_inference.engine.model_files import ModelFiles
from wan22_inference.engine.model_load import load_model
from wan22_inference.engine.rows8 import quantise_rows
from wan22_inference.engine.vae.checkpoint_names import checkpoint_names as vae_names
from wan22_testing.model_paths import model_paths
from wan22_testing.sizes import random_variant
from wan22_testing.tiny_models import TINY_VARIANTS, shared_folder

WEIGHTS = "diffusion_pytorch_model.safetensors"


def load(folder: Path, variant: str = "t2v-a14b-tiny", on_bytes: list[int] | None = None) -> Model:
    paths = model_paths(folder)
    heard = [] if on_bytes is None else on_bytes
    return load_model(VARIANTS[variant], paths, torch.device("cpu"), heard.append)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of a tiny model, to spoil."""
    return shutil.copytree(shared_folder("t2v-a14b-tiny"), tmp_path / "model")


@pytest.mark.parametrize("variant", TINY_VARIANTS)
def test_every_weight_is_loaded_and_every_byte_is_told(variant: str) -> None:
    folder, heard = shared_folder(variant), list[int]()
    model = load(folder, variant, heard)
    assert sum(heard) == sum(path.stat().st_size for path in folder.rglob("*.safetensors"))
    assert len(model.transformers) == VARIANTS[variant].experts
    for module, component in [(model.transformers[0], "transformer"), (model.vae, "vae")]:
        stored, state = load_file(folder / component / WEIGHTS), module.state_dict()
        names = partial(vae_names, config=model.vae.config) if component == "vae" else checkpoint_names
        state = {names(name)[0]: tensor for name, tensor in state.items()}
        assert stored.keys() == state.keys()
        assert all(torch.equal(stored[name], state[name]) for name in stored)
        assert not any(parameter.requires_grad for parameter in module.parameters())


def test_a_packed_model_is_the_same_model(folder: Path) -> None:
    plain, heard = load(folder), list[int]()
    for file in list(folder.rglob("*.safetensors")):
        pack_file(file, file.with_name(file.name + ".pack"), lambda _: None)
        file.unlink()
    packed = load(folder, on_bytes=heard)
    assert sum(heard) == sum(path.stat().st_size for path in folder.rglob("*.pack"))
    for one, other in zip(
        [*plain.transformers, plain.vae, plain.text_encoder.module],
        [*packed.transformers, packed.vae, packed.text_encoder.module],
        strict=True,
    ):
        expected, found = one.state_dict(), other.state_dict()
        assert expected.keys() == found.keys()
        assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_a_missing_weight_is_named(folder: Path) -> None:
    spoil(folder / "transformer_2" / WEIGHTS, remove="blocks.1.ffn.net.2.weight")
    with pytest.raises(
        FailedPrecondition, match=r"lacks blocks\.1\.ffn\.net\.2\.weight or blocks\.1\.ffn\.2\.weight"
    ) as caught:
        load(folder)
    assert caught.value.reason is Reason.MODEL_MISFIT


def test_an_unexpected_weight_is_named(folder: Path) -> None:
    spoil(folder / "vae" / WEIGHTS, add={"decoder.extra": torch.zeros(1)})
    with pytest.raises(FailedPrecondition, match=r"vae/ holds decoder\.extra, which the architecture does not have"):
        load(folder)


def test_a_weight_of_another_shape_is_named(folder: Path) -> None:
    spoil(folder / "transformer" / WEIGHTS, add={"proj_out.bias": torch.zeros(3)})
    with pytest.raises(FailedPrecondition, match=r"proj_out\.bias of shape \[3\], not \[64\]"):
        load(folder)


def test_a_weight_that_comes_twice_is_refused(folder: Path) -> None:
    save_file({"proj_out.bias": torch.zeros(64)}, folder / "transformer" / "more.safetensors")
    with pytest.raises(FailedPrecondition, match=r"transformer/ holds proj_out\.bias twice"):
        load(folder)


def test_weights_may_be_split_over_files(folder: Path) -> None:
    whole = folder / "transformer" / WEIGHTS
    state = load_file(whole)
    whole.unlink()
    names = sorted(state)
    for part, chosen in enumerate([names[:20], names[20:]]):
        save_file({name: state[name] for name in chosen}, folder / "transformer" / f"part-{part}.safetensors")
    loaded = load(folder).transformers[0].state_dict()
    assert all(torch.equal(state[checkpoint_names(name)[0]], tensor) for name, tensor in loaded.items())


def test_a_missing_file_is_named(folder: Path) -> None:
    shutil.rmtree(folder / "transformer_2")
    with pytest.raises(FailedPrecondition, match=r"transformer_2/config\.json is missing"):
        load(folder)


def test_a_config_of_another_variant_is_refused(folder: Path) -> None:
    with pytest.raises(FailedPrecondition, match="in_channels is 16, where i2v-a14b-tiny has 36"):
        load(folder, "i2v-a14b-tiny")


def test_a_second_expert_is_refused_where_there_is_one(tmp_path: Path) -> None:
    folder = shutil.copytree(shared_folder("ti2v-5b-tiny"), tmp_path / "model")
    shutil.copytree(folder / "transformer", folder / "transformer_2")
    with pytest.raises(FailedPrecondition, match="second expert, which ti2v-5b-tiny does not have"):
        load(folder, "ti2v-5b-tiny")


def test_a_tokenizer_without_an_end_token_is_refused(folder: Path) -> None:
    file = folder / "tokenizer" / "tokenizer.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"post_processor": None}))
    with pytest.raises(FailedPrecondition, match="does not end a text with </s>"):
        load(folder)


@pytest.mark.parametrize("names", [("shared",), ("encoder.embed_tokens",), ("shared", "encoder.embed_tokens")])
def test_embeddings_stored_under_either_name_or_both_are_the_same(folder: Path, names: tuple[str, ...]) -> None:
    file = folder / "text_encoder" / "model.safetensors"
    state = load_file(file)
    embeddings = state.pop("shared.weight")
    save_file(state | {f"{name}.weight": embeddings.clone() for name in names}, file)
    assert torch.equal(load(folder).text_encoder.module.embedding.weight, embeddings)


def test_embeddings_that_are_missing_are_named(folder: Path) -> None:
    spoil(folder / "text_encoder" / "model.safetensors", remove="shared.weight")
    with pytest.raises(FailedPrecondition, match=r"text_encoder/ lacks shared\.weight or token_embedding\.weight"):
        load(folder)


def quantise(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The linear layers of the blocks as a float8 model has them."""
    found: dict[str, torch.Tensor] = {}
    for name, tensor in state.items():
        if name.startswith("blocks.") and name.endswith(".weight") and tensor.ndim == 2:
            rows = quantise_rows(tensor)
            found |= {name: rows.data, f"{name}_scale": rows.scale}
        else:
            found[name] = tensor
    return found


def test_linear_layers_that_are_stored_in_float8_are_computed_so(folder: Path) -> None:
    states = {}
    for component in ("transformer", "transformer_2"):
        file = folder / component / WEIGHTS
        states[component] = quantise(load_file(file))
        save_file(states[component], file)
    model = load(folder)
    for module, stored in zip(model.transformers, states.values(), strict=True):
        layers = {name: layer for name, layer in module.named_modules() if isinstance(layer, Fp8Linear)}
        assert len(layers) == 10 * random_variant("t2v-a14b-tiny").num_layers
        for name, layer in layers.items():
            theirs = checkpoint_names(name)[0]
            assert torch.equal(layer.weight.view(torch.uint8), stored[f"{theirs}.weight"].view(torch.uint8))
            assert torch.equal(layer.weight_scale, stored[f"{theirs}.weight_scale"])


def test_a_scale_that_is_missing_is_named(folder: Path) -> None:
    file = folder / "transformer" / WEIGHTS
    state = quantise(load_file(file))
    del state["blocks.0.attn1.to_q.weight_scale"]
    save_file(state, file)
    with pytest.raises(FailedPrecondition, match=r"lacks blocks\.0\.attn1\.to_q\.weight_scale or "):
        load(folder)


def test_what_diffusers_keeps_in_float32_stays_so_in_bfloat16(folder: Path) -> None:
    paths = model_paths(folder)
    files = ModelFiles(paths)
    module = empty_transformer(files, "transformer", torch.bfloat16)
    fill_transformer(module, files, "transformer", torch.device("cpu"), WeightLoader(lambda _: None))
    dtypes = {name: parameter.dtype for name, parameter in module.named_parameters()}
    kept = {name for name, dtype in dtypes.items() if dtype is torch.float32}
    assert kept == {
        name
        for name in dtypes
        if name.startswith("time_embedding.") or "cross_norm" in name or name.endswith("modulation")
    }
    assert all(dtype is torch.bfloat16 for name, dtype in dtypes.items() if name not in kept)


@pytest.mark.parametrize("keep", [4, 2000])
def test_a_truncated_file_is_data_loss(folder: Path, keep: int) -> None:
    file = folder / "transformer" / WEIGHTS
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(DataLoss, match=f"transformer/{WEIGHTS} is damaged"):
        load(folder)


def test_a_file_cut_in_its_last_tensor_is_data_loss(folder: Path) -> None:
    file = folder / "transformer" / WEIGHTS
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(DataLoss, match=r"its tensors end at 386368, but it has 386367"):
        load(folder)


def spoil(file: Path, *, remove: str | None = None, add: dict[str, torch.Tensor] | None = None) -> None:
    state = load_file(file) | (add or {})
    save_file({name: tensor for name, tensor in state.items() if name != remove}, file)
