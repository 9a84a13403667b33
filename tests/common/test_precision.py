from __future__ import annotations

import pytest
from tests.inference import official_model

from wan22.errors import InvalidRequest
from wan22.pack.safetensors_header import read_header
from wan22.precision import check_precision, default_tags, is_quantised
from wan22.variants import VARIANTS
from wan22_testing.tiny_models import shared_folder


@pytest.mark.parametrize("variant", ["t2v-a14b-tiny", "ti2v-5b-tiny"])
def test_both_layouts_quantise_the_same_matrices(variant: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    ours, theirs = shared_folder(variant), official_model.write(variant, tmp_path_factory.mktemp("m") / "official")
    expert = "high_noise_model" if "a14b" in variant else "."
    shard = f"{expert}/diffusion_pytorch_model-00001-of-00001.safetensors"
    for component, first, second in [
        ("transformer", "transformer/diffusion_pytorch_model.safetensors", shard),
        ("text_encoder", "text_encoder/model.safetensors", "models_t5_umt5-xxl-enc-bf16.safetensors"),
    ]:  # fmt: skip
        chosen = []
        for path in (ours / first, theirs / second):
            with path.open("rb") as file:
                tensors = read_header(file, path.stat().st_size).tensors
            names = [
                tensor
                for tensor in tensors
                if is_quantised(VARIANTS[variant], f"{component}/x.safetensors", tensor.name)
            ]
            chosen.append(sorted(tensor.shape for tensor in names))
        per_block = {"transformer": 10, "text_encoder": 7}[component]
        assert len(chosen[0]) == 2 * per_block
        assert chosen[0] == chosen[1]
        assert all(len(shape) == 2 for shape in chosen[0])
    assert not is_quantised(VARIANTS[variant], "vae/x.safetensors", "blocks.0.attn1.to_q.weight")


@pytest.mark.parametrize("variant", ["t2v-a14b", "i2v-a14b", "ti2v-5b"])
def test_the_first_two_blocks_of_a_published_transformer_are_not_quantised(variant: str) -> None:
    for tensor in ("attn1.to_q.weight", "cross_attn.o.weight", "ffn.net.2.weight"):
        found = [
            is_quantised(VARIANTS[variant], "transformer/x.safetensors", f"blocks.{n}.{tensor}") for n in range(30)
        ]
        assert found == [False, False, *[True] * 28]
    assert is_quantised(VARIANTS[variant], "text_encoder/x.safetensors", "blocks.0.attn.q.weight")


def test_a_precision_has_its_tags() -> None:
    assert default_tags("t2v-a14b", check_precision("bf16")) == ["latest", "bf16"]
    assert default_tags("t2v-a14b", check_precision("fp8")) == ["fp8"]
    assert default_tags("t2v-a14b-tiny", "bf16") == ["latest"]
    with pytest.raises(InvalidRequest, match="'int4': use bf16 or fp8"):
        check_precision("int4")
