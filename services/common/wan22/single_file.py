"""One component of a model as a single safetensors file, which takes the place of that component in another version."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from wan22.errors import InvalidRequest, Reason
from wan22.folder_files import forbidden
from wan22.pack.malformed import MalformedFile
from wan22.pack.safetensors_header import read_header
from wan22.v1 import model_pb2
from wan22.variants import VARIANTS, Variant

PLACES = {
    "transformer": "transformer/diffusion_pytorch_model.safetensors",
    "transformer_2": "transformer_2/diffusion_pytorch_model.safetensors",
    "text_encoder": "text_encoder/model.safetensors",
    "vae": "vae/diffusion_pytorch_model.safetensors",
}
"""Path of a component's weights, if they are one file."""
_WEIGHTS = (".safetensors", ".safetensors.pack", ".safetensors.index.json")


def place_of(file: Path, component: str, variant_name: str) -> str:
    """Where the file belongs in a model of the variant. Raises InvalidRequest for weights that cannot be it.

    Sizes of a transformer are compared here, all other names and shapes by the worker that loads it.
    """
    variant = VARIANTS[variant_name]
    if component not in PLACES or (component == "transformer_2" and variant.experts == 1):
        known = [name for name in PLACES if name != "transformer_2" or variant.experts == 2]
        text = f"component is {component!r}: {variant_name} has {', '.join(known)}."
        raise InvalidRequest(text, field="component", reason=Reason.INVALID_PARAMETERS)
    try:
        with file.open("rb") as opened:
            shapes = {tensor.name: tensor.shape for tensor in read_header(opened, file.stat().st_size).tensors}
    except MalformedFile as error:
        raise forbidden(file, f"is no safetensors file: {error}") from error
    if component.startswith("transformer"):
        _check_transformer(file, shapes, variant)
    return PLACES[component]


def without_weights(version: model_pb2.Version, component: str) -> Sequence[model_pb2.File]:
    """The files of a version but for a component's weights."""
    prefix = f"{component}/"
    return [file for file in version.files if not (file.path.startswith(prefix) and file.path.endswith(_WEIGHTS))]


def _check_transformer(file: Path, shapes: dict[str, tuple[int, ...]], variant: Variant) -> None:
    found = shapes.get("patch_embedding.weight")
    layers = len({name.split(".")[1] for name in shapes if name.startswith("blocks.")})
    wanted = (variant.dim, variant.in_channels, 1, 2, 2)
    if found is None:
        raise forbidden(file, "is no transformer: it has no tensor patch_embedding.weight")
    if variant.small:  # its sizes are its model's own, and are checked with the model's config
        return
    if found != wanted or layers != variant.num_layers:
        text = (
            f"has patch_embedding.weight of {list(found)} and {layers} blocks, where {variant.name} has {list(wanted)}"
        )
        raise forbidden(file, f"{text} and {variant.num_layers}")
