"""LoRA adapters at full size with random weights: what they cost, that they leave no trace; less of it on a CPU."""

from __future__ import annotations

import time
from typing import Any

import pytest
import torch
from torch import Tensor

from wan22.loras import Expert, Lora
from wan22.variants import VARIANTS
from wan22_inference.engine.lora.adaptation import Adaptation
from wan22_inference.engine.lora.adapter import Deltas, LoraAdapter, Product
from wan22_inference.engine.lora.targets import layers_of
from wan22_inference.engine.noise import latent_shape
from wan22_inference.engine.timesteps import Timesteps
from wan22_inference.engine.transformer import Transformer
from wan22_testing.forwards import Work, error, random_transformer, seconds

Figures = list[dict[str, Any]]
NAME = "models/style/versions/sha256:" + "0" * 64
LORA = Lora(adapter=NAME, expert=Expert.BOTH, strength=0.8)


def make_adapter(transformer: Transformer, rank: int) -> LoraAdapter:
    """Random products beside all matrices of the blocks, in bfloat16, of a tenth of each layer's own size."""
    generator = torch.Generator().manual_seed(3)
    products = {}
    for name, layer in layers_of(transformer).items():
        if name.startswith("blocks."):
            outputs, inputs = layer.weight.shape
            down = torch.randn(rank, inputs, generator=generator) / inputs**0.5
            up = 0.1 * torch.randn(outputs, rank, generator=generator) / rank**0.5
            products[name] = Product(down.bfloat16(), up.bfloat16(), None, 1.0)
    size = sum(product.down.nbytes + product.up.nbytes for product in products.values())
    return LoraAdapter((Deltas(products),), size)


def compare(work: Work, rank: int, device: torch.device, *, fp8: bool) -> dict[str, Any]:
    """Seconds of a forward with and without an adapter, and of attaching it."""
    transformer = random_transformer(work, 0, device, fp8=fp8)
    variant = VARIANTS[work.variant]
    _, _, *size = latent_shape(variant, work.width, work.height, work.num_frames)
    generator = torch.Generator().manual_seed(1)
    latents = torch.randn(1, variant.in_channels, *size, generator=generator).to(device)
    text = torch.randn(1, 512, 4096, generator=generator).to(device)
    timesteps = Timesteps(torch.tensor([900.0], device=device), (size[0],))

    @torch.inference_mode()
    def forward() -> Tensor:
        velocity: Tensor = transformer(latents, timesteps, context, lambda: None)
        return velocity

    with torch.inference_mode():
        context = transformer.text_context(text)
    plain, plain_seconds = forward(), seconds(forward, device)
    adaptation = Adaptation([transformer], [LORA], {NAME: make_adapter(transformer, rank)}, device)
    started = time.perf_counter()
    adaptation.give_turn(0)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    attached = time.perf_counter() - started
    adapted, adapted_seconds = forward(), seconds(forward, device)
    adaptation.clear()
    assert torch.equal(forward(), plain)
    return {
        "plain": plain_seconds,
        "adapted": adapted_seconds,
        "attach": attached,
        "bytes": adaptation.device_bytes,
        "change": error(adapted, plain),
    }


def check(figures: dict[str, Any]) -> None:
    assert 0.01 < figures["change"] < 2.0


@pytest.mark.gpu
@pytest.mark.parametrize("fp8", [False, True])
def test_an_adapter_of_rank_64_costs_little_at_full_size(cuda: torch.device, figures: Figures, fp8: bool) -> None:
    work = Work("t2v-a14b", VARIANTS["t2v-a14b"].num_layers, 832, 480, 81)
    found = compare(work, 64, cuda, fp8=fp8)
    check(found)
    precision = "fp8" if fp8 else "bf16"
    figures.append(
        {
            "id": "lora",
            "what": f"forward with a LoRA of rank 64 over one without, {precision}, {work}",
            "value": found["adapted"] / found["plain"],
            "unit": "x",
            "peak_bytes": found["bytes"],
        }
    )
    figures.append({"id": "lora", "what": f"attaching it, {precision}", "value": found["attach"], "unit": "s"})
    assert found["adapted"] < 1.3 * found["plain"]


@pytest.mark.parametrize("fp8", [False, True])
def test_the_comparison_runs_on_a_cpu(fp8: bool) -> None:
    check(compare(Work("t2v-a14b-tiny", 2, 64, 96, 5), 4, torch.device("cpu"), fp8=fp8))
