"""What a first video need not wait for, since it was done while weights were loaded."""

from __future__ import annotations

import pytest
import torch

from wan22.variants import NEGATIVE_PROMPT, VARIANTS
from wan22_inference.engine.model_load import load_model
from wan22_inference.engine.options import EngineOptions, TextEncoderPlace
from wan22_testing.model_paths import model_paths
from wan22_testing.tiny_models import shared_folder

VARIANT = "t2v-a14b-tiny"


@pytest.mark.gpu
@pytest.mark.parametrize(("place", "computed"), [(TextEncoderPlace.DEVICE, 1), (TextEncoderPlace.HOST, 2)])
def test_the_default_negative_prompt_is_encoded_with_the_bits_of_later(
    cuda: torch.device, place: TextEncoderPlace, computed: int
) -> None:
    folder = shared_folder(VARIANT)
    paths = model_paths(folder)
    options = EngineOptions(text_encoder=place)
    model = load_model(VARIANTS[VARIANT], paths, cuda, lambda _: None, options)
    calls: list[int] = []
    model.text_encoder.module.register_forward_hook(lambda *_: calls.append(1))
    texts = {"prompt": "a red circle moves right", "negative_prompt": NEGATIVE_PROMPT}
    first = model.text_encoder.encode(texts)
    assert len(calls) == computed
    again = load_model(VARIANTS[VARIANT], paths, cuda, lambda _: None, EngineOptions(embedding_cache_bytes=0))
    assert torch.equal(again.text_encoder.encode(texts)["negative_prompt"], first["negative_prompt"])
