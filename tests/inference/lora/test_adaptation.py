"""Adapters in our DiT against diffusers' own loading of the same files, and what they leave behind: nothing."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import WanPipeline, WanTransformer3DModel
from safetensors.torch import load_file, save_file
from torch import Tensor

from wan22.errors import FailedPrecondition, Reason
from wan22.loras import Expert, Lora
from wan22_inference.engine.block_stream import BlockStream
from wan22_inference.engine.linear import Fp8Linear
from wan22_inference.engine.lora.adaptation import Adaptation
from wan22_inference.engine.lora.adapter import LoraAdapter, read_adapter
from wan22_inference.engine.lora.targets import targets_of
from wan22_inference.engine.model import Model
from wan22_inference.engine.timesteps import Timesteps
from wan22_inference.engine.transformer import Transformer
from wan22_testing.forwards import our_state
from wan22_testing.lora_files import RandomLora, Style, diffusers_name
from wan22_testing.tiny_models import shared_folder

T2V = "t2v-a14b-tiny"
CPU = torch.device("cpu")
NAME = "models/style/versions/sha256:" + "0" * 64
OTHER = "models/other/versions/sha256:" + "1" * 64


def inputs() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    text = torch.zeros(1, 512, 32)
    text[:, :9] = torch.randn(1, 9, 32, generator=generator)
    return torch.randn(1, 16, 2, 8, 12, generator=generator), text


@torch.inference_mode()
def run(module: Transformer) -> Tensor:
    latents, text = inputs()
    timesteps = Timesteps(torch.tensor([500.0]), (2,))
    velocity: Tensor = module(latents, timesteps, module.text_context(text), lambda: None)
    return velocity


@torch.inference_mode()
def run_theirs(module: Any) -> Tensor:
    latents, text = inputs()
    velocity: Tensor = module(latents, torch.tensor([500.0]), text, return_dict=False)[0]
    return velocity


def error(value: Tensor, reference: Tensor) -> float:
    return float((value - reference).norm() / reference.norm())


def theirs(component: str = "transformer") -> Any:
    folder = shared_folder(T2V) / component
    module = WanTransformer3DModel.from_config(json.loads((folder / "config.json").read_text()))
    module.load_state_dict(load_file(folder / "diffusion_pytorch_model.safetensors"))
    return module.eval()


def pipeline() -> Any:
    parts = dict.fromkeys(("tokenizer", "text_encoder", "vae", "scheduler"))
    return WanPipeline(**parts, transformer=theirs(), transformer_2=theirs("transformer_2"))


@pytest.fixture
def experts(tiny_model: Callable[[str], Model]) -> Sequence[Transformer]:
    return tiny_model(T2V).transformers


def read(path: Path, experts: Sequence[Transformer], alpha: float | None = None) -> LoraAdapter:
    return read_adapter(path, targets_of(experts[0]), len(experts), alpha)


def adapted(
    experts: Sequence[Transformer],
    adapters: dict[str, LoraAdapter],
    *loras: Lora,
    index: int = 0,
) -> Tensor:
    adaptation = Adaptation(experts, loras, adapters, CPU)
    adaptation.give_turn(index)
    try:
        return run(experts[index])
    finally:
        adaptation.clear()


def lora(name: str = NAME, expert: Expert = Expert.BOTH, strength: float = 1.0) -> Lora:
    return Lora(adapter=name, expert=expert, strength=strength)


@pytest.mark.parametrize("style", Style)
@pytest.mark.parametrize("strength", [1.0, 0.7, -0.3])
def test_each_style_gives_what_diffusers_makes_of_the_file(
    experts: Sequence[Transformer], tmp_path: Path, style: Style, strength: float
) -> None:
    file = RandomLora(T2V, rank=4, alpha=2.0)
    path = file.write(tmp_path / "lora.safetensors", style)
    value = adapted(experts, {NAME: read(path, experts, alpha=2.0)}, lora(strength=strength))
    reference = pipeline()
    # PEFT's own prefix is what diffusers does not know, and its alpha is in a file beside
    known = path if style is not Style.PEFT else file.write(tmp_path / "known.safetensors", Style.DIFFUSERS)
    reference.load_lora_weights(str(tmp_path), weight_name=known.name, adapter_name="style")
    reference.transformer.set_adapters(["style"], [strength])
    assert error(value, run_theirs(reference.transformer)) < 1e-5
    assert error(value, run(experts[0])) > 0.05


def test_the_second_expert_gives_what_diffusers_makes_of_it(experts: Sequence[Transformer], tmp_path: Path) -> None:
    path = RandomLora(T2V).write(tmp_path / "lora.safetensors", Style.KOHYA)
    value = adapted(experts, {NAME: read(path, experts)}, lora(expert=Expert.LOW), index=1)
    reference = pipeline()
    reference.load_lora_weights(str(tmp_path), weight_name=path.name, load_into_transformer_2=True)
    assert error(value, run_theirs(reference.transformer_2)) < 1e-5
    untouched = adapted(experts, {NAME: read(path, experts)}, lora(expert=Expert.LOW), index=0)
    assert torch.equal(untouched, run(experts[0]))


@pytest.mark.filterwarnings("ignore:Already found a `peft_config` attribute:UserWarning")
def test_several_at_once_give_what_diffusers_makes_of_them(experts: Sequence[Transformer], tmp_path: Path) -> None:
    first = RandomLora(T2V, rank=4, seed=1).write(tmp_path / "first.safetensors", Style.LIGHTX2V)
    second = RandomLora(T2V, rank=8, alpha=8.0, seed=2).write(tmp_path / "second.safetensors", Style.DIFFUSERS)
    adapters = {NAME: read(first, experts), OTHER: read(second, experts)}
    value = adapted(experts, adapters, lora(strength=0.6), lora(OTHER, Expert.HIGH, 0.9))
    reference = pipeline()
    for name in ("first", "second"):
        reference.load_lora_weights(str(tmp_path), weight_name=f"{name}.safetensors", adapter_name=name)
    reference.transformer.set_adapters(["first", "second"], [0.6, 0.9])
    assert error(value, run_theirs(reference.transformer)) < 1e-5


def test_a_file_of_both_experts_gives_each_its_own(experts: Sequence[Transformer], tmp_path: Path) -> None:
    files = [RandomLora(T2V, seed=seed) for seed in (1, 2)]
    tensors = files[0].tensors(Style.DIFFUSERS)
    for name, tensor in files[1].tensors(Style.DIFFUSERS).items():
        tensors[name.replace("transformer.", "transformer_2.", 1)] = tensor
    path = tmp_path / "both.safetensors"
    save_file(tensors, path, files[0].metadata(Style.DIFFUSERS))
    both = {NAME: read(path, experts)}
    for index, file in enumerate(files):
        alone = {NAME: read(file.write(tmp_path / f"{index}.safetensors", Style.DIFFUSERS), experts)}
        assert torch.equal(adapted(experts, both, lora(), index=index), adapted(experts, alone, lora(), index=index))


def merged(file: RandomLora, sums: dict[str, Tensor], strength: float) -> Any:
    """Diffusers' module with everything added to its weights; `sums` by its own names."""
    module = theirs()
    state = module.state_dict()
    for official, (down, up) in file.products().items():
        state[f"{diffusers_name(official)}.weight"] += strength * file.alpha / file.rank * (up @ down)
    for name, addend in sums.items():
        state[name] += strength * addend
    module.load_state_dict(state)
    return module


SUMS = {
    "patch_embedding.diff": "patch_embedding.weight",
    "patch_embedding.diff_b": "patch_embedding.bias",
    "head.head.diff": "proj_out.weight",
    "head.head.diff_b": "proj_out.bias",
    "head.diff_m": "scale_shift_table",
    "blocks.1.diff_m": "blocks.1.scale_shift_table",
    "blocks.0.self_attn.q.diff_b": "blocks.0.attn1.to_q.bias",
    "blocks.0.ffn.2.diff_b": "blocks.0.ffn.net.2.bias",
    "blocks.0.self_attn.norm_q.diff": "blocks.0.attn1.norm_q.weight",
    "blocks.1.cross_attn.norm_k.diff": "blocks.1.attn2.norm_k.weight",
    "blocks.1.norm3.diff": "blocks.1.norm2.weight",
    "blocks.1.norm3.diff_b": "blocks.1.norm2.bias",
    "time_embedding.0.diff": "condition_embedder.time_embedder.linear_1.weight",
    "time_projection.1.diff_b": "condition_embedder.time_proj.bias",
    "text_embedding.2.diff": "condition_embedder.text_embedder.linear_2.weight",
}
"""LightX2V's names of what is added whole, and diffusers' of what it is added to."""


@pytest.mark.parametrize("strength", [1.0, 0.5])
def test_what_lightx2v_adds_whole_is_added(experts: Sequence[Transformer], tmp_path: Path, strength: float) -> None:
    file, state = RandomLora(T2V), theirs().state_dict()
    addends = {name: 0.3 * file.noise(name, *state[to].shape) * state[to].std() for name, to in SUMS.items()}
    path = tmp_path / "lora.safetensors"
    save_file(file.tensors(Style.LIGHTX2V) | {f"diffusion_model.{name}": t for name, t in addends.items()}, path)
    value = adapted(experts, {NAME: read(path, experts)}, lora(strength=strength))
    reference = run_theirs(merged(file, {SUMS[name]: addend for name, addend in addends.items()}, strength))
    assert error(value, reference) < 1e-5


def test_layers_outside_the_blocks_take_products_too(experts: Sequence[Transformer], tmp_path: Path) -> None:
    file = RandomLora(T2V)
    layers = {"patch_embedding": (48, 64), "time_projection.1": (288, 48), "text_embedding.0": (48, 32)}
    factors = {
        name: (file.noise(f"{name}.down", 4, inputs) / 8, file.noise(f"{name}.up", outputs, 4) / 8)
        for name, (outputs, inputs) in layers.items()
    }
    tensors = {}
    for name, (down, up) in factors.items():
        kernel = name == "patch_embedding"
        tensors[f"diffusion_model.{name}.lora_down.weight"] = down.reshape(4, 16, 1, 2, 2) if kernel else down
        tensors[f"diffusion_model.{name}.lora_up.weight"] = up.reshape(-1, 4, 1, 1, 1) if kernel else up
    save_file(tensors, tmp_path / "lora.safetensors")
    value = adapted(experts, {NAME: read(tmp_path / "lora.safetensors", experts)}, lora())
    module = theirs()
    state = module.state_dict()
    names = ("patch_embedding", "condition_embedder.time_proj", "condition_embedder.text_embedder.linear_1")
    for name, (down, up) in zip(names, factors.values(), strict=True):
        state[f"{name}.weight"] += (up @ down).reshape(state[f"{name}.weight"].shape)
    module.load_state_dict(state)
    assert error(value, run_theirs(module)) < 1e-5


def test_nothing_is_left_of_an_adapter(experts: Sequence[Transformer], tmp_path: Path) -> None:
    path = RandomLora(T2V).write(tmp_path / "lora.safetensors")
    plain = run(experts[0])
    before = {name: (tensor, tensor.clone()) for name, tensor in experts[0].state_dict().items()}
    assert error(adapted(experts, {NAME: read(path, experts)}, lora()), plain) > 0.05
    assert torch.equal(run(experts[0]), plain)
    for name, tensor in experts[0].state_dict().items():
        assert tensor.data_ptr() == before[name][0].data_ptr()
        assert torch.equal(tensor, before[name][1])


def test_an_expert_loses_its_adapters_when_the_others_turn_comes(
    experts: Sequence[Transformer], tmp_path: Path
) -> None:
    path = RandomLora(T2V).write(tmp_path / "lora.safetensors")
    plain = run(experts[0])
    adaptation = Adaptation(experts, [lora()], {NAME: read(path, experts)}, CPU)
    adaptation.give_turn(0)
    adaptation.give_turn(1)
    assert torch.equal(run(experts[0]), plain)
    adaptation.clear()


def test_strength_zero_is_as_if_it_were_not_there(experts: Sequence[Transformer], tmp_path: Path) -> None:
    path = RandomLora(T2V).write(tmp_path / "lora.safetensors")
    assert torch.equal(adapted(experts, {NAME: read(path, experts)}, lora(strength=0.0)), run(experts[0]))


def test_the_bytes_on_the_device_are_those_of_one_expert(experts: Sequence[Transformer], tmp_path: Path) -> None:
    file = RandomLora(T2V)
    adapter = read(file.write(tmp_path / "lora.safetensors", Style.PEFT), experts)
    adaptation = Adaptation(experts, [lora(), lora(expert=Expert.LOW)], {NAME: adapter}, CPU)
    numbers = sum(down.numel() + up.numel() for down, up in file.products().values())
    assert adaptation.device_bytes == 4 * 2 * numbers  # the low-noise expert has it twice
    assert adapter.bytes == 4 * numbers


def test_an_adapter_without_anything_for_its_expert_is_refused(experts: Sequence[Transformer], tmp_path: Path) -> None:
    tensors = RandomLora(T2V).tensors(Style.DIFFUSERS)
    only_second = {name.replace("transformer.", "transformer_2.", 1): tensor for name, tensor in tensors.items()}
    save_file(only_second, tmp_path / "lora.safetensors")
    adapters = {NAME: read(tmp_path / "lora.safetensors", experts)}
    with pytest.raises(FailedPrecondition, match="nothing for the expert HIGH") as caught:
        Adaptation(experts, [lora(expert=Expert.HIGH)], adapters, CPU)
    assert caught.value.reason is Reason.ADAPTER_MISFIT
    assert torch.equal(adapted(experts, adapters, lora(), index=0), run(experts[0]))


def test_streamed_blocks_are_adapted_all_the_same(experts: Sequence[Transformer], tmp_path: Path) -> None:
    path = RandomLora(T2V).write(tmp_path / "lora.safetensors")
    expected = adapted(experts, {NAME: read(path, experts)}, lora())
    streamed = copy.deepcopy(experts[0])
    streamed.block_stream = BlockStream(streamed.blocks, CPU)
    assert torch.equal(adapted([streamed, experts[1]], {NAME: read(path, experts)}, lora()), expected)


def test_quantised_layers_are_adapted_as_well_as_they_compute(experts: Sequence[Transformer], tmp_path: Path) -> None:
    path = RandomLora(T2V).write(tmp_path / "lora.safetensors")
    adapters = {NAME: read(path, experts)}
    with torch.device("meta"):
        quantised = Transformer(experts[0].config, torch.float32, fp8=True)
    weights = load_file(shared_folder(T2V) / "transformer" / "diffusion_pytorch_model.safetensors")
    quantised.load_state_dict(our_state(quantised, weights), assign=True)
    quantised.requires_grad_(requires_grad=False)
    assert sum(isinstance(module, Fp8Linear) for module in quantised.modules()) == 20
    plain, with_adapter = run(experts[0]), adapted(experts, adapters, lora())
    yardstick = error(run(quantised), plain)
    value = adapted([quantised, experts[1]], adapters, lora())
    assert error(value, with_adapter) < 2 * yardstick
    assert error(value, plain) > 5 * yardstick
    assert torch.equal(run(quantised), run(quantised))
