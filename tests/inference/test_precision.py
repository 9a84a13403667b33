from __future__ import annotations

import torch
from transformers import UMT5Config, UMT5EncoderModel

from wan22.precision import runs_in_bfloat16
from wan22.variants import VARIANTS
from wan22_inference.engine.checkpoint_names import checkpoint_names
from wan22_inference.engine.model_files import ModelFiles
from wan22_inference.engine.transformer import Transformer
from wan22_inference.engine.transformer_config import read_transformer_config
from wan22_testing.tiny_models import shared_folder


def test_an_import_casts_exactly_the_weights_that_the_transformer_runs_in_bfloat16() -> None:
    folder = shared_folder("t2v-a14b-tiny")
    files = ModelFiles({"transformer/config.json": folder / "transformer" / "config.json"})
    with torch.device("meta"):
        module = Transformer(read_transformer_config(files.config("transformer"), "transformer"), torch.bfloat16)
    kinds = set()
    for name, tensor in module.state_dict().items():
        for stored in checkpoint_names(name):
            for component in ("transformer", "transformer_2"):
                found = runs_in_bfloat16(VARIANTS["t2v-a14b"], f"{component}/w.safetensors", stored)
                assert found == (tensor.dtype is torch.bfloat16), stored
        kinds.add(tensor.dtype)
    assert kinds == {torch.bfloat16, torch.float32}


def test_the_whole_text_encoder_is_cast_and_nothing_of_vae_or_tiny_models() -> None:
    with torch.device("meta"):
        names = UMT5EncoderModel(UMT5Config(num_layers=1)).state_dict().keys()
    assert all(runs_in_bfloat16(VARIANTS["ti2v-5b"], "text_encoder/model.safetensors", name) for name in names)
    assert not runs_in_bfloat16(VARIANTS["ti2v-5b"], "vae/w.safetensors", "decoder.conv_in.weight")
    assert not runs_in_bfloat16(VARIANTS["ti2v-5b-tiny"], "transformer/w.safetensors", "proj_out.weight")
