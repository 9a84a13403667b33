"""Builds one module of a model from its config and weights, strictly: none is missing, none is left over."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel
from diffusers.models.transformers.transformer_wan import WanRotaryPosEmbed
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import UMT5Config, UMT5EncoderModel

from wan22.errors import FailedPrecondition, Reason
from wan22_inference.engine.safetensors_file import read_tensors

OnBytes = Callable[[int], None]
"""Told how many further bytes of the model's files are in memory."""

_KEEP_FLOAT32 = ("time_embedder", "scale_shift_table", "norm1", "norm2", "norm3")
"""Parts of the DiT that stay float32 whatever the rest is, as diffusers' WanTransformer3DModel has it."""


@dataclass(frozen=True)
class ModelFiles:
    """A version's files: path within the model, such as `vae/config.json`, to a local file."""

    paths: Mapping[str, Path]

    def weights(self, component: str) -> list[str]:
        """The component's safetensors files, sorted; refused when there is none."""
        names = sorted(
            name for name in self.paths if name.startswith(f"{component}/") and name.endswith(".safetensors")
        )
        if not names:
            raise misfit(f"{component}/ has no .safetensors file")
        return names

    def config(self, component: str) -> dict[str, Any]:
        """The component's config.json."""
        return json.loads(self.read(f"{component}/config.json"))  # type: ignore[no-any-return]  # an object in all configs

    def read(self, name: str) -> bytes:
        """A small file's content."""
        if name not in self.paths:
            raise misfit(f"{name} is missing")
        return self.paths[name].read_bytes()

    def weight_bytes(self) -> int:
        """Bytes of all safetensors files."""
        return sum(path.stat().st_size for name, path in self.paths.items() if name.endswith(".safetensors"))


def misfit(what: str) -> FailedPrecondition:
    """The error for a model that is not what its variant needs."""
    return FailedPrecondition(f"The model does not fit: {what}. Push a complete model.", reason=Reason.MODEL_MISFIT)


def load_tokenizer(files: ModelFiles) -> Tokenizer:
    """The tokenizer of tokenizer/tokenizer.json; refused when it does not end a text with `</s>`, as UMT5's does."""
    tokenizer = Tokenizer.from_str(files.read("tokenizer/tokenizer.json").decode())
    if tokenizer.encode("a").tokens[-1:] != ["</s>"]:
        raise misfit("tokenizer/tokenizer.json does not end a text with </s>")
    return tokenizer


def load_text_encoder(files: ModelFiles, device: torch.device, dtype: torch.dtype, on_bytes: OnBytes) -> Any:
    """UMT5's encoder of text_encoder/."""
    with torch.device("meta"):
        module = UMT5EncoderModel(UMT5Config.from_dict(files.config("text_encoder")))
    tied = {"encoder.embed_tokens.weight": "shared.weight"}
    _fill(module, files, "text_encoder", device, dtype_of=lambda _: dtype, on_bytes=on_bytes, tied=tied)
    return module


def load_transformer(
    files: ModelFiles, component: str, device: torch.device, dtype: torch.dtype, on_bytes: OnBytes
) -> WanTransformer3DModel:
    """A DiT of transformer/ or transformer_2/."""
    with torch.device("meta"):
        module = WanTransformer3DModel.from_config(files.config(component))
    config = module.config  # its rotary tables are computed, not loaded, so they cannot stay on meta
    module.rope = WanRotaryPosEmbed(config.attention_head_dim, config.patch_size, config.rope_max_seq_len)

    def dtype_of(name: str) -> torch.dtype:
        return torch.float32 if any(part in _KEEP_FLOAT32 for part in name.split(".")) else dtype

    _fill(module, files, component, device, dtype_of=dtype_of, on_bytes=on_bytes)
    return module


def load_vae(files: ModelFiles, device: torch.device, on_bytes: OnBytes) -> AutoencoderKLWan:
    """The VAE of vae/, in float32: encoding in less is visibly worse."""
    with torch.device("meta"):
        module = AutoencoderKLWan.from_config(files.config("vae"))
    _fill(module, files, "vae", device, dtype_of=lambda _: torch.float32, on_bytes=on_bytes)
    return module


def _fill(
    module: nn.Module,
    files: ModelFiles,
    component: str,
    device: torch.device,
    *,
    dtype_of: Callable[[str], torch.dtype],
    on_bytes: OnBytes,
    tied: Mapping[str, str] | None = None,
) -> None:
    """Gives each parameter its value. `tied` names parameters that may be left out in favour of another."""
    wanted = {name: value.shape for name, value in module.state_dict().items()}
    state: dict[str, Tensor] = {}
    for name, tensor in _read(files, component, on_bytes):
        if name not in wanted:
            raise misfit(f"{component}/ holds {name}, which the architecture does not have")
        if name in state:
            raise misfit(f"{component}/ holds {name} twice")
        if tensor.shape != wanted[name]:
            raise misfit(f"{component}/ holds {name} of shape {list(tensor.shape)}, not {list(wanted[name])}")
        state[name] = tensor.to(device=device, dtype=dtype_of(name))
    for name, other in (tied or {}).items():
        if name in wanted and (name in state) != (other in state):
            state.setdefault(name, state.get(other, torch.empty(0)))
            state.setdefault(other, state[name])
    missing = sorted(wanted.keys() - state.keys())
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise misfit(f"{component}/ lacks {', '.join(missing[:3])}{more}")
    module.load_state_dict(state, assign=True)
    module.to(device)
    module.requires_grad_(requires_grad=False).eval()


def _read(files: ModelFiles, component: str, on_bytes: OnBytes) -> Iterator[tuple[str, Tensor]]:
    for file in files.weights(component):
        path, told = files.paths[file], 0
        for name, tensor in read_tensors(path, file):
            yield name, tensor
            told += tensor.nbytes
            on_bytes(tensor.nbytes)
        on_bytes(path.stat().st_size - told)
