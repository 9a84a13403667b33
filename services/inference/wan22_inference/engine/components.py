"""Builds one module of a model from its config and weights, strictly: none is missing, none is left over."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from wan22.tokenizer.tokenizer import TOKENIZER_FILE, Tokenizer, open_tokenizer
from wan22_inference.engine.checkpoint_names import checkpoint_names
from wan22_inference.engine.loading.loader import WeightLoader
from wan22_inference.engine.loading.rooms import Rooms
from wan22_inference.engine.loading.sources import read_tensor_names
from wan22_inference.engine.model_files import ModelFiles, misfit
from wan22_inference.engine.scaled_linear import scale_linear_layers
from wan22_inference.engine.text_encoder_config import read_text_encoder_config
from wan22_inference.engine.text_encoder_model import TextEncoderModel
from wan22_inference.engine.text_encoder_names import ALIASES
from wan22_inference.engine.text_encoder_names import checkpoint_names as text_encoder_checkpoint_names
from wan22_inference.engine.transformer import Transformer
from wan22_inference.engine.transformer_config import read_transformer_config
from wan22_inference.engine.vae.checkpoint_names import checkpoint_names as vae_checkpoint_names
from wan22_inference.engine.vae.config import read_vae_config
from wan22_inference.engine.vae.vae import Vae

END = "</s>"
"""What each text ends with."""
_BLOCK = re.compile(r"blocks\.(\d+)\.")
"""How names of a DiT's blocks begin, diffusers' and the official repository's."""


def begin_tokenizer(files: ModelFiles) -> Tokenizer:
    """The model's tokenizer, which may be on its way still."""
    return open_tokenizer(files.path(TOKENIZER_FILE))


def check_tokenizer(tokenizer: Tokenizer) -> None:
    """Waits for a tokenizer. Refuses one that cannot be read, or does not end a text with `</s>`, as UMT5's does."""
    if tokenizer.last_token != END:
        raise misfit(f"{TOKENIZER_FILE} does not end a text with {END}")


def empty_text_encoder(files: ModelFiles, dtype: torch.dtype) -> TextEncoderModel:
    """UMT5's encoder of text_encoder/ on the meta device: all but its weights, in float8 if they are stored so."""
    config = read_text_encoder_config(files.config("text_encoder"))
    with torch.device("meta"):
        module = TextEncoderModel(config).to(dtype)
        if _scales(files, "text_encoder"):
            scale_linear_layers(module)
    return module


def empty_transformer(
    files: ModelFiles, component: str, dtype: torch.dtype, *, attention8: bool = False
) -> Transformer:
    """A DiT of transformer/ or transformer_2/ on the meta device: all but its weights.

    It computes its blocks' linear layers in float8 where they are stored so, which their scales tell: in all
    blocks from the first that has any.
    """
    scaled = [int(block[1]) for block in map(_BLOCK.match, _scales(files, component)) if block is not None]
    with torch.device("meta"):
        config = read_transformer_config(files.config(component), component)
        exact = min(scaled, default=config.num_layers)
        return Transformer(config, dtype, fp8=bool(scaled), exact_blocks=exact, attention8=attention8)


def _scales(files: ModelFiles, component: str) -> list[str]:
    names = [name for file in files.weights(component) for name in read_tensor_names(files.paths[file], file)]
    return [name for name in names if name.endswith(".weight_scale")]


def empty_vae(files: ModelFiles, decode_dtype: torch.dtype) -> Vae:
    """The VAE of vae/ on the meta device: all but its weights; it encodes in float32."""
    config = read_vae_config(files.config("vae"))
    with torch.device("meta"):
        return Vae(config, decode_dtype)


def fill_text_encoder(module: TextEncoderModel, files: ModelFiles, device: torch.device, loader: WeightLoader) -> None:
    """Gives UMT5's encoder its weights, whether named as transformers or as the official repository does it."""
    names = {name: text_encoder_checkpoint_names(name) for name in module.state_dict()}
    _fill(module, files, "text_encoder", device, loader=loader, names=names, aliases=ALIASES)


def fill_transformer(
    module: Transformer, files: ModelFiles, component: str, device: torch.device, loader: WeightLoader
) -> None:
    """Gives a DiT its weights, on a device, whether named as diffusers or as the official repository does it."""
    names = {name: checkpoint_names(name) for name in module.state_dict()}
    _fill(module, files, component, device, loader=loader, names=names)


def fill_vae(module: Vae, files: ModelFiles, device: torch.device, loader: WeightLoader) -> None:
    """Gives the VAE its weights, on a device, whether named as diffusers or as the official repository does it."""
    names = {name: vae_checkpoint_names(name, module.config) for name in module.state_dict()}
    _fill(module, files, "vae", device, loader=loader, names=names)
    module.to_channels_last()


def _fill(
    module: nn.Module,
    files: ModelFiles,
    component: str,
    device: torch.device,
    *,
    loader: WeightLoader,
    names: Mapping[str, tuple[str, ...]],
    aliases: Mapping[str, str] | None = None,
) -> None:
    """Gives each parameter its value, in the dtype that the module has it in.

    `names` has each parameter's names in checkpoints; `aliases` more names for some, which may come beside those.
    """
    parameters, aliases = module.state_dict(), aliases or {}
    wanted = parameters | {alias: parameters[name] for alias, name in aliases.items()}
    own = {stored: name for name in parameters for stored in names[name]} | {alias: alias for alias in aliases}
    rooms = Rooms(wanted, device)
    state: dict[str, Tensor] = {}

    def place(stored: str, shape: tuple[int, ...]) -> Tensor:
        name = own.get(stored)
        if name is None:
            raise misfit(f"{component}/ holds {stored}, which the architecture does not have")
        if name in state:
            raise misfit(f"{component}/ holds {stored} twice")
        if shape != wanted[name].shape:
            raise misfit(f"{component}/ holds {stored} of shape {list(shape)}, not {list(wanted[name].shape)}")
        state[name] = rooms.take(name)
        return state[name]

    loader.load([(file, files.paths[file]) for file in files.weights(component)], device, place)
    for alias, name in aliases.items():
        if alias in state:
            state[name] = state.pop(alias)
    missing = [" or ".join(dict.fromkeys(names[name])) for name in parameters if name not in state]
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise misfit(f"{component}/ lacks {', '.join(missing[:3])}{more}")
    module.load_state_dict(state, assign=True)
    module.to(device)
    module.requires_grad_(requires_grad=False).eval()
