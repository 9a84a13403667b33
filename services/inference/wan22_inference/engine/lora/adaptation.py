"""The adapters of one generation: each expert has its own of them while its turn lasts, and nothing of them after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from wan22.loras import Expert, Lora
from wan22_inference.engine.adaptable import Branch
from wan22_inference.engine.lora.adapter import Deltas, LoraAdapter, Product
from wan22_inference.engine.lora.misfit import misfit
from wan22_inference.engine.lora.targets import Layer, layers_of, vectors_of
from wan22_inference.engine.transformer import Transformer


@dataclass(frozen=True)
class Choice:
    """What one adapter adds to one expert, and how strongly."""

    deltas: Deltas
    strength: float


class Adaptation:
    """Attaches adapters to the experts of a model, by turns; all calls from the thread that computes."""

    def __init__(
        self,
        transformers: Sequence[Transformer],
        loras: Sequence[Lora],
        adapters: Mapping[str, LoraAdapter],
        device: torch.device,
    ) -> None:
        """`adapters` has each of the loras by its name.

        Raises FailedPrecondition (ADAPTER_MISFIT) for one that has nothing for the expert that it is asked for.
        """
        self._transformers = transformers
        self._device = device
        self._choices = [
            [
                _choice(lora, adapters[lora.adapter], index)
                for lora in loras
                if lora.strength != 0.0 and index in lora.expert.indexes(len(transformers))
            ]
            for index in range(len(transformers))
        ]

    @property
    def device_bytes(self) -> int:
        """The most that it takes of the device at once: one expert's."""
        return max(
            _bytes(transformer, choices) for transformer, choices in zip(self._transformers, self._choices, strict=True)
        )

    def give_turn(self, index: int) -> None:
        """Takes the adapters off the other experts, and attaches this one's."""
        self.clear()
        transformer, choices = self._transformers[index], self._choices[index]
        for name, layer in layers_of(transformer).items() if choices else ():
            layer.branch = _branch(name, layer, choices, self._device)
        for name, (module, leaf) in vectors_of(transformer).items() if choices else ():
            addend = _sum(name, choices, self._device)
            if addend is not None:
                module.sums[leaf] = addend

    def clear(self) -> None:
        """Takes the adapters off all experts."""
        for transformer in self._transformers:
            for layer in layers_of(transformer).values():
                layer.branch = None
            for module, _ in vectors_of(transformer).values():
                module.sums.clear()


def _choice(lora: Lora, adapter: LoraAdapter, index: int) -> Choice:
    deltas = adapter.experts[index]
    if not deltas and lora.expert is not Expert.BOTH:
        raise misfit(f"{lora.adapter} has nothing for the expert {lora.expert}")
    return Choice(deltas, lora.strength)


def _branch(name: str, layer: Layer, choices: Sequence[Choice], device: torch.device) -> Branch | None:
    dtype = layer.bias.dtype
    products = [(choice.deltas.products[name], choice.strength) for choice in choices if name in choice.deltas.products]
    down = up = None
    if products:
        down = torch.cat([product.down.to(device, dtype) for product, _ in products])
        up = torch.cat([_scaled(product.up, product, strength, device) for product, strength in products], 1).to(dtype)
    whole, bias = _sum(f"{name}.weight", choices, device), _sum(f"{name}.bias", choices, device)
    for product, strength in products:
        if product.bias is not None:
            addend = _scaled(product.bias, product, strength, device)
            bias = addend if bias is None else bias + addend
    if down is None and whole is None and bias is None:
        return None
    return Branch(down, up, None if whole is None else whole.to(dtype), None if bias is None else bias.to(dtype))


def _scaled(tensor: Tensor, product: Product, strength: float, device: torch.device) -> Tensor:
    return tensor.to(device).float() * (product.scale * strength)


def _sum(name: str, choices: Sequence[Choice], device: torch.device) -> Tensor | None:
    """What all adapters add to a parameter, float32."""
    addends = [
        choice.deltas.sums[name].to(device).float() * choice.strength
        for choice in choices
        if name in choice.deltas.sums
    ]
    return torch.stack(addends).sum(0) if addends else None


def _bytes(transformer: Transformer, choices: Sequence[Choice]) -> int:
    element = transformer.dtype.itemsize
    products = [product for choice in choices for product in choice.deltas.products.values()]
    sums = [addend for choice in choices for addend in choice.deltas.sums.values()]
    return element * (
        sum(product.down.numel() + product.up.numel() for product in products) + sum(addend.numel() for addend in sums)
    )
