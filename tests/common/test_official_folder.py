from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from tests.registry.model_folder import safetensors

from wan22.errors import InvalidRequest, Reason
from wan22.model_folder import infer_variant, read_model_folder
from wan22.official_configs import text_encoder_config, vae_config
from wan22.pack.malformed import MalformedFile

T5 = {
    "token_embedding.weight": (256_384, 4_096),
    "blocks.0.pos_embedding.embedding.weight": (32, 64),
    "blocks.0.attn.q.weight": (4_096, 4_096),
    "blocks.0.ffn.gate.0.weight": (10_240, 4_096),
    "blocks.23.norm1.weight": (4_096,),
}
VAE_21 = {"encoder.conv1.weight": (96, 3, 3, 3, 3), "decoder.conv1.weight": (384, 16, 3, 3, 3)}
VAE_22 = {"encoder.conv1.weight": (160, 12, 3, 3, 3), "decoder.conv1.weight": (1_024, 48, 3, 3, 3)}
DIT = {"_class_name": "WanModel", "dim": 5120, "ffn_dim": 13824, "in_dim": 16, "num_layers": 40, "num_heads": 40}


def weights(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """A file whose tensors are empty: each has a further dimension of 0, or its first one is."""
    header = {
        name: {"dtype": "F32", "shape": [0, *shape[1:]], "data_offsets": [0, 0]} for name, shape in shapes.items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(safetensors(header))


def put(folder: Path, *names: str, text: str = "{}") -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """As Wan-AI/Wan2.2-T2V-A14B is laid out, converted; of few bytes."""
    folder = tmp_path / "model"
    for expert in ("high_noise_model", "low_noise_model"):
        put(folder, f"{expert}/config.json", text=json.dumps(DIT))
        put(folder, f"{expert}/diffusion_pytorch_model.safetensors.index.json")
        for number in (1, 2):
            weights(folder / expert / f"diffusion_pytorch_model-0000{number}-of-00002.safetensors", {})
    weights(folder / "models_t5_umt5-xxl-enc-bf16.safetensors", T5)
    weights(folder / "Wan2.1_VAE.safetensors", VAE_21)
    put(folder, "google/umt5-xxl/tokenizer.json", "google/umt5-xxl/tokenizer_config.json")
    put(folder, "google/umt5-xxl/spiece.model", "models_t5_umt5-xxl-enc-bf16.pth", "Wan2.1_VAE.pth")
    put(folder, "configuration.json", "README.md", "assets/logo.png", "examples/i2v_input.JPG")
    return folder


def test_each_file_gets_its_place_in_diffusers_layout(folder: Path) -> None:
    found = read_model_folder(folder)
    assert {name: str(path.relative_to(folder)) for name, path in found.files.items()} == {
        "text_encoder/model.safetensors": "models_t5_umt5-xxl-enc-bf16.safetensors",
        "tokenizer/tokenizer.json": "google/umt5-xxl/tokenizer.json",
        "tokenizer/tokenizer_config.json": "google/umt5-xxl/tokenizer_config.json",
        "vae/diffusion_pytorch_model.safetensors": "Wan2.1_VAE.safetensors",
        **{
            f"{ours}/{name}": f"{theirs}/{name}"
            for ours, theirs in (("transformer", "high_noise_model"), ("transformer_2", "low_noise_model"))
            for name in (
                "config.json",
                "diffusion_pytorch_model-00001-of-00002.safetensors",
                "diffusion_pytorch_model-00002-of-00002.safetensors",
                "diffusion_pytorch_model.safetensors.index.json",
            )
        },
    }
    assert sorted(found.made) == ["text_encoder/config.json", "vae/config.json"]
    assert sorted(path.name for path in found.left_out) == [
        "README.md",
        "Wan2.1_VAE.pth",
        "configuration.json",
        "i2v_input.JPG",
        "logo.png",
        "models_t5_umt5-xxl-enc-bf16.pth",
        "spiece.model",
    ]
    assert infer_variant(folder) == "t2v-a14b"


def test_the_model_with_one_transformer_has_it_at_the_root(folder: Path) -> None:
    for path in [*folder.glob("*_noise_model/*")]:
        path.unlink()
    put(folder, "config.json", text=json.dumps(DIT | {"dim": 3072, "ffn_dim": 14336, "in_dim": 48, "num_layers": 30}))
    weights(folder / "diffusion_pytorch_model-00001-of-00003.safetensors", {})
    for path in [*folder.glob("Wan2.*")]:
        path.unlink()
    weights(folder / "Wan2.2_VAE.safetensors", VAE_21)
    found = read_model_folder(folder).files
    assert found["transformer/config.json"] == folder / "config.json"
    assert found["transformer/diffusion_pytorch_model-00001-of-00003.safetensors"].parent == folder
    assert infer_variant(folder) == "ti2v-5b"


@pytest.mark.parametrize("name", ["models_t5_umt5-xxl-enc-bf16", "Wan2.1_VAE"])
def test_a_pickle_is_refused_with_the_command_that_converts_it(folder: Path, name: str) -> None:
    (folder / f"{name}.safetensors").unlink()
    with pytest.raises(InvalidRequest, match=f"/{name}.pth is a pickle.*`wan22 models convert-pth .*/{name}.pth ") as e:
        read_model_folder(folder)
    assert e.value.reason is Reason.FORBIDDEN_FILE


def test_what_is_missing_or_has_no_place_is_named(folder: Path) -> None:
    weights(folder / "extra.safetensors", {})
    with pytest.raises(InvalidRequest, match=r"extra\.safetensors is no part of the official repository's layout"):
        read_model_folder(folder)
    (folder / "extra.safetensors").rename(folder / "Wan2.2_VAE.safetensors")
    with pytest.raises(InvalidRequest, match=r"is a second one beside Wan2\.\d_VAE\.safetensors: keep one"):
        read_model_folder(folder)
    for path in folder.glob("Wan2.*"):
        path.unlink()
    with pytest.raises(InvalidRequest, match=r"has no Wan2\.1_VAE or Wan2\.2_VAE: download .*convert-pth"):
        read_model_folder(folder)
    weights(folder / "Wan2.1_VAE.safetensors", {"other": (1,)})
    with pytest.raises(InvalidRequest, match=r"VAE\.safetensors is not what its name says: it has no tensor encoder"):
        read_model_folder(folder)
    weights(folder / "Wan2.1_VAE.safetensors", VAE_21)
    (folder / "google" / "umt5-xxl" / "tokenizer.json").unlink()
    (folder / "google" / "umt5-xxl" / "spiece.model").unlink()
    with pytest.raises(InvalidRequest, match=r"no google/umt5-xxl/tokenizer\.json"):
        read_model_folder(folder)


def test_the_text_encoders_shapes_tell_its_configuration() -> None:
    found = json.loads(text_encoder_config(T5 | {f"blocks.{n}.norm1.weight": (4_096,) for n in range(24)}))
    expected = {"vocab_size": 256_384, "d_model": 4_096, "d_kv": 64, "d_ff": 10_240, "num_heads": 64, "num_layers": 24}
    assert found.items() >= expected.items()
    assert found["relative_attention_num_buckets"] == 32
    with pytest.raises(MalformedFile, match=r"it has no tensor blocks\.0\.attn\.q\.weight"):
        text_encoder_config({name: shape for name, shape in T5.items() if "attn.q" not in name})
    with pytest.raises(MalformedFile, match=r"token_embedding.weight has shape \[7\], and 2 dimensions are wanted"):
        text_encoder_config(T5 | {"token_embedding.weight": (7,)})


def test_the_vaes_shapes_tell_which_it_is() -> None:
    older, newer = json.loads(vae_config(VAE_21)), json.loads(vae_config(VAE_22))
    assert (older["base_dim"], older["z_dim"], "is_residual" in older) == (96, 16, False)
    assert (newer["base_dim"], newer["decoder_base_dim"], newer["z_dim"]) == (160, 256, 48)
    assert (newer["patch_size"], newer["scale_factor_spatial"], len(newer["latents_std"])) == (2, 16, 48)
    with pytest.raises(MalformedFile, match="takes 4 channels to 16"):
        vae_config(VAE_21 | {"encoder.conv1.weight": (96, 4, 3, 3, 3)})
