"""Reads a LoRA file strictly: every tensor is understood and fits the DiT, or the file is refused."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from wan22.pack.safetensors_header import LENGTH_BYTES, header_end
from wan22_inference.engine.lora.keys import Key, Part, TargetNames, other_kind, parse
from wan22_inference.engine.lora.misfit import misfit
from wan22_inference.engine.lora.scaling import Scaling, read_scaling
from wan22_inference.engine.lora.targets import Targets


@dataclass(frozen=True)
class Product:
    """A low-rank product beside a layer's own: up (down x), and a bias, times the scale."""

    down: Tensor
    """(rank, in)."""
    up: Tensor
    """(out, rank)."""
    bias: Tensor | None
    """(out,)."""
    scale: float


@dataclass(frozen=True)
class Deltas:
    """What is added to one expert at strength 1; on the CPU, in the dtypes of the file."""

    products: dict[str, Product] = field(default_factory=dict)
    """By layer."""
    sums: dict[str, Tensor] = field(default_factory=dict)
    """By parameter, of its shape; but a weight of a product is (out, in)."""

    def __bool__(self) -> bool:
        """Whether there is anything to add."""
        return bool(self.products or self.sums)


@dataclass(frozen=True)
class LoraAdapter:
    """A LoRA file in memory."""

    experts: tuple[Deltas, ...]
    """For each of the variant's; empty where the file has nothing for it."""
    bytes: int
    """Of its tensors."""


def read_adapter(path: Path, targets: Targets, experts: int, alpha: float | None = None) -> LoraAdapter:
    """Reads a LoRA file for a variant of so many experts.

    `alpha` is of a file that does not tell it itself. Raises FailedPrecondition (ADAPTER_MISFIT) naming the tensor that
    is not understood, not finite, or of another shape than its layer needs.
    """
    data = path.read_bytes()
    try:
        tensors = load(data)
    except SafetensorError as error:
        raise misfit(f"it is no safetensors file ({error})") from None
    scaling = read_scaling(_metadata(data), alpha)
    files = [_Expert(targets, scaling[0]), _Expert(targets, scaling[1])]
    for name, tensor in tensors.items():
        key = _understood(name)
        files[key.second].add(name, key, _checked(name, tensor))
    first, second = (expert.deltas() for expert in files)
    if second and experts == 1:
        raise misfit("it has tensors of transformer_2, and the variant has one expert")
    if not first and not second:
        raise misfit("it is empty")
    both = (first, second) if second else (first, first)
    return LoraAdapter(both[:experts], sum(tensor.nbytes for tensor in tensors.values()))


def _metadata(data: bytes) -> Mapping[str, str]:
    found: dict[str, str] = json.loads(data[LENGTH_BYTES : header_end(data[:LENGTH_BYTES], len(data))]).get(
        "__metadata__", {}
    )
    return found


def _understood(name: str) -> Key:
    key = parse(name)
    kind = other_kind(name)
    if kind is not None:
        raise misfit(f"{name} is of {kind}: only LoRA is applied")
    if key is None:
        raise misfit(f"{name} is a name of none of the known styles of LoRA files")
    return key


def _checked(name: str, tensor: Tensor) -> Tensor:
    if not tensor.is_floating_point():
        raise misfit(f"{name} is of {tensor.dtype}, which is no floating-point number")
    if not bool(tensor.float().isfinite().all()):
        raise misfit(f"{name} has numbers that are not finite")
    return tensor


@dataclass(frozen=True)
class _Named:
    name: str
    tensor: Tensor


class _Expert:
    """What a file has for one expert, sorted by what it belongs to."""

    def __init__(self, targets: Targets, scaling: Scaling) -> None:
        self._targets = targets
        self._scaling = scaling
        self._names = TargetNames(targets.layers, targets.vectors)
        self._parts: defaultdict[str, dict[Part, _Named]] = defaultdict(dict)
        self._bases: dict[str, str] = {}
        """How the file names each layer."""
        self._sums: dict[str, _Named] = {}

    def add(self, name: str, key: Key, tensor: Tensor) -> None:
        """Takes one tensor. Raises FailedPrecondition when it belongs to nothing, or something else to the same."""
        of_product = key.part in {Part.DOWN, Part.UP, Part.UP_BIAS, Part.ALPHA}
        target = self._names.layer(key.base) if of_product else self._names.parameter(key)
        if target is None:
            raise misfit(f"{name} belongs to no layer of the variant")
        parts = self._parts[target] if of_product else {}
        known = parts.get(key.part) if of_product else self._sums.get(target)
        if known is not None:
            raise misfit(f"{known.name} and {name} are the same under two names")
        if of_product:
            parts[key.part] = _Named(name, tensor)
            self._bases[target] = key.base
        else:
            self._sums[target] = _Named(name, tensor)

    def deltas(self) -> Deltas:
        """All of it. Raises FailedPrecondition for half a product, and for a shape that does not fit."""
        products = {layer: self._product(layer, parts) for layer, parts in self._parts.items()}
        return Deltas(products, dict(self._checked_sums()))

    def _product(self, layer: str, parts: dict[Part, _Named]) -> Product:
        if Part.DOWN not in parts or Part.UP not in parts:
            raise misfit(f"{next(iter(parts.values())).name} is half of a product: its other half is missing")
        outputs, inputs = self._targets.layers[layer]
        down, up = parts[Part.DOWN], parts[Part.UP]
        rank = down.tensor.shape[0] if down.tensor.ndim else 0
        for named, wanted in ((down, (rank, inputs)), (up, (outputs, rank))):
            _check_shape(named, wanted, flat=True)
        if rank == 0:
            raise misfit(f"{down.name} is of rank 0")
        bias = parts.get(Part.UP_BIAS)
        if bias is not None:
            _check_shape(bias, (outputs,))
        alpha = parts.get(Part.ALPHA)
        if alpha is not None and alpha.tensor.numel() != 1:
            raise misfit(f"{alpha.name} has {alpha.tensor.numel()} numbers, an alpha is one")
        stored = None if alpha is None else float(alpha.tensor)
        scale = self._scaling.factor(self._bases[layer], rank, stored)
        factors = (down.tensor.reshape(rank, inputs), up.tensor.reshape(outputs, rank))
        return Product(*factors, None if bias is None else bias.tensor, scale)

    def _checked_sums(self) -> Iterator[tuple[str, Tensor]]:
        for parameter, named in self._sums.items():
            layer, _, leaf = parameter.rpartition(".")
            if layer in self._targets.layers:
                outputs, inputs = self._targets.layers[layer]
                wanted: tuple[int, ...] = (outputs, inputs) if leaf == "weight" else (outputs,)
            else:
                wanted = tuple(self._targets.vectors[parameter])
            flat = leaf == "weight" and len(wanted) == 2
            _check_shape(named, wanted, flat=flat)
            yield parameter, named.tensor.reshape(wanted)


def _check_shape(named: _Named, wanted: tuple[int, ...], *, flat: bool = False) -> None:
    """A convolution's kernel may come with its own dimensions: what counts are its rows."""
    shape = tuple(named.tensor.shape)
    seen = (shape[0], named.tensor[0].numel()) if flat and len(shape) > 1 and shape[0] else shape
    if seen != wanted:
        raise misfit(f"{named.name} has the shape {list(shape)}, its layer needs {list(wanted)}")
