from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from wan22.errors import FailedPrecondition, Reason
from wan22_inference.engine.lora.adapter import LoraAdapter, read_adapter
from wan22_inference.engine.lora.targets import Targets, targets_of
from wan22_inference.engine.model import Model
from wan22_testing.lora_files import RandomLora, Style

T2V = "t2v-a14b-tiny"
QUERY = "blocks.0.self_attention.query"
Refused = Callable[..., str]


@pytest.fixture
def targets(tiny_model: Callable[[str], Model]) -> Targets:
    return targets_of(tiny_model(T2V).transformers[0])


@pytest.fixture
def read(tmp_path: Path, targets: Targets) -> Callable[..., LoraAdapter]:
    def make(
        tensors: dict[str, Tensor],
        metadata: dict[str, str] | None = None,
        experts: int = 2,
        alpha: float | None = None,
    ) -> LoraAdapter:
        save_file(tensors, tmp_path / "lora.safetensors", metadata)
        return read_adapter(tmp_path / "lora.safetensors", targets, experts, alpha)

    return make


@pytest.fixture
def refused(read: Callable[..., LoraAdapter]) -> Refused:
    def run(tensors: dict[str, Tensor], metadata: dict[str, str] | None = None, experts: int = 2) -> str:
        with pytest.raises(FailedPrecondition) as caught:
            read(tensors, metadata, experts)
        assert caught.value.reason is Reason.ADAPTER_MISFIT
        return caught.value.message

    return run


def whole() -> dict[str, Tensor]:
    return RandomLora(T2V).tensors(Style.LIGHTX2V)


def pair(prefix: str, down: str = "lora_A.weight", up: str = "lora_B.weight") -> dict[str, Tensor]:
    return {f"{prefix}.{down}": torch.ones(4, 48), f"{prefix}.{up}": torch.ones(48, 4)}


@pytest.mark.parametrize(
    "tensors",
    [
        pair("transformer.blocks.0.attn1.to_q"),
        pair("blocks.0.attn1.to_q"),
        pair("base_model.model.blocks.0.attn1.to_q"),
        pair("base_model.model.transformer.blocks.0.attn1.to_q"),
        pair("blocks.0.self_attn.q", "lora_A.default.weight", "lora_B.default.weight"),
        pair("pipe.dit.blocks.0.self_attn.q"),
        pair("diffusion_model.blocks.0.self_attn.q"),
        pair("diffusion_model.blocks.0.self_attn.q", "lora_down.weight", "lora_up.weight"),
        pair("model.diffusion_model.blocks.0.self_attn.q", "lora_down.weight", "lora_up.weight"),
        pair("lora_unet_blocks_0_self_attn_q", "lora_down.weight", "lora_up.weight"),
        pair("transformer.blocks.0.attn1.to_q", "lora.down.weight", "lora.up.weight"),
    ],
    ids=lambda tensors: next(iter(tensors)),
)
def test_every_spelling_of_a_layer_is_understood(read: Callable[..., LoraAdapter], tensors: dict[str, Tensor]) -> None:
    adapter = read(tensors)
    for deltas in adapter.experts:
        assert list(deltas.products) == [QUERY]
        assert deltas.products[QUERY].scale == 1.0
        assert deltas.sums == {}


def test_alpha_over_rank_is_the_scale_wherever_alpha_is(read: Callable[..., LoraAdapter]) -> None:
    def scale(adapter: LoraAdapter) -> float:
        return adapter.experts[0].products[QUERY].scale

    tensors = pair("transformer.blocks.0.attn1.to_q")
    told = {"transformer.r": 4, "transformer.lora_alpha": 16}
    stabilised = {"r": 4, "lora_alpha": 16, "use_rslora": True}
    pattern = {"r": 4, "lora_alpha": 16, "alpha_pattern": {"attn1.to_q": 1, "attn1.to_k": 3}}

    def metadata(config: Mapping[str, object]) -> dict[str, str]:
        return {"lora_adapter_metadata": json.dumps(config)}

    assert scale(read(tensors | {"transformer.blocks.0.attn1.to_q.alpha": torch.tensor(2.0)})) == 0.5
    assert scale(read(tensors, alpha=8.0)) == 2.0
    assert scale(read(tensors, metadata(told))) == 4.0
    assert scale(read(tensors, metadata(stabilised))) == 16 / math.sqrt(4)
    assert scale(read(tensors, metadata(pattern))) == 0.25


def test_a_bias_of_a_product_is_kept_beside_it(read: Callable[..., LoraAdapter]) -> None:
    bias = {"transformer.blocks.0.attn1.to_q.lora_B.bias": torch.full((48,), 2.0)}
    product = read(pair("transformer.blocks.0.attn1.to_q") | bias).experts[0].products[QUERY]
    assert product.bias is not None
    assert torch.equal(product.bias, torch.full((48,), 2.0))


@pytest.mark.parametrize(
    ("name", "shape", "what"),
    [
        ("diffusion_model.blocks.0.cross_attn.k_img.lora_down.weight", (4, 48), "belongs to no layer of the variant"),
        ("diffusion_model.blocks.2.self_attn.q.lora_down.weight", (4, 48), "belongs to no layer of the variant"),
        ("lora_te_text_model.lora_down.weight", (4, 48), "belongs to no layer of the variant"),
        ("diffusion_model.blocks.0.norm1.diff", (48,), "belongs to no layer of the variant"),
        ("diffusion_model.blocks.0.self_attn.q.diff_m", (48,), "belongs to no layer of the variant"),
        ("diffusion_model.blocks.0.self_attn.q.weight", (48, 48), "is a name of none of the known styles"),
        ("anything", (1,), "is a name of none of the known styles"),
        ("diffusion_model.blocks.0.self_attn.q.dora_scale", (48, 1), "is of DoRA: only LoRA is applied"),
        ("base_model.model.blocks.0.attn1.to_q.lora_magnitude_vector", (48,), "is of DoRA"),
        ("diffusion_model.blocks.0.self_attn.q.hada_w1_a", (48, 4), "is of LoHa"),
        ("diffusion_model.blocks.0.self_attn.q.lokr_w1", (4, 4), "is of LoKr"),
        ("lora_unet_blocks_0_self_attn_q.lora_mid.weight", (4, 4), "is of LoCon"),
        ("diffusion_model.blocks.0.ffn.0.diff_b", (48,), r"has the shape [48], its layer needs [96]"),
        ("diffusion_model.blocks.0.norm3.diff", (47,), r"has the shape [47], its layer needs [48]"),
        ("diffusion_model.blocks.0.diff_m", (6, 48), r"has the shape [6, 48], its layer needs [1, 6, 48]"),
        ("diffusion_model.head.head.lora_up.weight", (64, 4), "is half of a product: its other half is missing"),
        ("diffusion_model.head.head.alpha", (), "is half of a product"),
    ],
)
def test_a_tensor_that_cannot_be_used_is_named(refused: Refused, name: str, shape: tuple[int, ...], what: str) -> None:
    message = refused(whole() | {name: torch.zeros(shape)})
    assert message.startswith(f"The adapter does not fit: {name} {what}")


@pytest.mark.parametrize(
    ("name", "tensor", "what"),
    [
        ("lora_down.weight", torch.zeros(4, 47), "has the shape [4, 47], its layer needs [4, 48]"),
        ("lora_up.weight", torch.zeros(48, 5), "has the shape [48, 5], its layer needs [48, 4]"),
        ("lora_up.weight", torch.zeros(48), "has the shape [48], its layer needs [48, 4]"),
        ("lora_down.weight", torch.tensor(1.0), "has the shape []"),
        ("lora_down.weight", torch.full((4, 48), math.nan), "has numbers that are not finite"),
        ("lora_up.weight", torch.full((48, 4), math.inf), "has numbers that are not finite"),
        ("lora_up.weight", torch.zeros(48, 4, dtype=torch.int64), "is of torch.int64"),
        ("alpha", torch.zeros(2), "has 2 numbers, an alpha is one"),
    ],
)
def test_a_factor_that_does_not_fit_is_named(refused: Refused, name: str, tensor: Tensor, what: str) -> None:
    changed = f"diffusion_model.blocks.0.self_attn.q.{name}"
    assert f"{changed} {what}" in refused(whole() | {changed: tensor})


def test_a_rank_of_zero_is_refused(refused: Refused) -> None:
    factors = {"lora_down.weight": torch.zeros(0, 48), "lora_up.weight": torch.zeros(48, 0)}
    message = refused({f"blocks.0.self_attn.q.{name}": tensor for name, tensor in factors.items()})
    assert "is of rank 0" in message


def test_a_layer_under_two_names_is_refused(refused: Refused) -> None:
    message = refused(pair("blocks.0.self_attn.q") | pair("transformer.blocks.0.attn1.to_q"))
    assert message.endswith("are the same under two names.")


def test_an_empty_file_is_refused(refused: Refused) -> None:
    assert refused({}) == "The adapter does not fit: it is empty."


def test_tensors_of_a_second_expert_need_one(refused: Refused) -> None:
    assert "the variant has one expert" in refused(pair("transformer_2.blocks.0.attn1.to_q"), experts=1)


@pytest.mark.parametrize(
    ("metadata", "what"),
    [
        ("{", "is not what diffusers writes"),
        ("[]", "is not what diffusers writes"),
        ('{"r": 4}', "is not what diffusers writes"),
        ('{"lora_alpha": 4, "use_dora": true}', "DoRA is more than LoRA"),
        ('{"lora_alpha": 4, "alpha_pattern": {"(a+)+$": 1}}', "is an expression"),
    ],
)
def test_metadata_that_says_something_else_is_refused(refused: Refused, metadata: str, what: str) -> None:
    assert what in refused(pair("transformer.blocks.0.attn1.to_q"), {"lora_adapter_metadata": metadata})


def test_a_file_that_is_no_safetensors_file_is_refused(tmp_path: Path, targets: Targets) -> None:
    (tmp_path / "lora.safetensors").write_bytes(b"PK\x03\x04 a pickle, perhaps")
    with pytest.raises(FailedPrecondition, match="no safetensors file"):
        read_adapter(tmp_path / "lora.safetensors", targets, 2)
