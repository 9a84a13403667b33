from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from wan22.errors import InvalidRequest
from wan22.variants import NEGATIVE_PROMPT
from wan22_inference.engine.components import begin_tokenizer, empty_text_encoder, fill_text_encoder
from wan22_inference.engine.embedding_cache import EmbeddingCache
from wan22_inference.engine.host_copy import HostCopy
from wan22_inference.engine.loading.loader import WeightLoader
from wan22_inference.engine.model_files import ModelFiles
from wan22_inference.engine.options import EngineOptions, TextEncoderPlace
from wan22_inference.engine.text import TextEncoder
from wan22_inference.engine.text_encoder_model import TextEncoderModel
from wan22_testing.model_paths import model_paths
from wan22_testing.tiny_models import shared_folder

CPU = torch.device("cpu")
Encode = Callable[[str], Tensor]


@pytest.fixture
def files() -> ModelFiles:
    return ModelFiles(model_paths(shared_folder("t2v-a14b-tiny")))


def load(files: ModelFiles) -> TextEncoderModel:
    module = empty_text_encoder(files, torch.float32)
    fill_text_encoder(module, files, CPU, WeightLoader(lambda _: None))
    return module


@pytest.fixture
def module(files: ModelFiles) -> TextEncoderModel:
    return load(files)


@pytest.fixture
def encoder(files: ModelFiles, module: TextEncoderModel) -> TextEncoder:
    return TextEncoder(begin_tokenizer(files), module, CPU, EngineOptions(embedding_cache_bytes=0))


@pytest.fixture
def encode(encoder: TextEncoder) -> Encode:
    return lambda text: encoder.encode({"prompt": text})["prompt"]


def test_embeddings_are_zero_past_the_end_token_and_nowhere_else(encode: Encode) -> None:
    embeddings = encode("a cat")  # ▁a ▁cat </s>
    assert embeddings.shape == (1, 512, 32)
    assert (embeddings[0, :3].abs().sum(dim=1) > 0).all()
    assert not embeddings[0, 3:].any()


def test_padding_does_not_reach_the_text(encode: Encode, files: ModelFiles, module: TextEncoderModel) -> None:
    ids = begin_tokenizer(files).ids("a cat")
    alone = module(torch.tensor([ids]), len(ids))
    torch.testing.assert_close(encode("a cat")[:, :3], alone, rtol=1e-5, atol=1e-5)


def test_the_text_is_cleaned_first(encode: Encode) -> None:
    assert torch.equal(encode("  a  cat &amp;amp;\n a dog "), encode("a cat & a dog"))


def test_512_tokens_are_taken_and_513_refused(encoder: TextEncoder, encode: Encode) -> None:
    longest = "a " * 511
    assert encode(longest)[0, 511].any()
    with pytest.raises(InvalidRequest, match="negative_prompt has 513 tokens") as caught:
        encoder.encode({"negative_prompt": longest + "a"})
    assert caught.value.violations[0].field == "parameters.negative_prompt"


def test_a_text_that_may_be_cut_keeps_its_first_511_tokens_and_the_end(encoder: TextEncoder, encode: Encode) -> None:
    longest = "a " * 511
    cut = encoder.encode({"prompt": longest + "cat dog"}, may_cut=True)["prompt"]
    assert torch.equal(cut, encode(longest))


def test_an_empty_text_is_its_end_token(encode: Encode) -> None:
    embeddings = encode("")
    assert embeddings[0, 0].any()
    assert not embeddings[0, 1:].any()


def test_the_official_negative_prompt_fits(encode: Encode) -> None:
    assert encode(NEGATIVE_PROMPT).isfinite().all()


def test_a_text_is_encoded_once_and_has_the_same_bits_from_the_cache(
    files: ModelFiles, module: TextEncoderModel, encode: Encode
) -> None:
    calls = []
    module.register_forward_hook(lambda *_: calls.append(1))
    encoder = TextEncoder(begin_tokenizer(files), module, CPU, EngineOptions())
    texts = {"prompt": "a cat", "negative_prompt": "a dog"}
    first, second = encoder.encode(texts), encoder.encode(texts | {"prompt": " a  cat"})
    assert len(calls) == 2
    for field, text in texts.items():
        assert torch.equal(first[field], second[field])
        assert torch.equal(first[field], encode(text))


@pytest.mark.parametrize("place", TextEncoderPlace)
def test_on_a_cpu_each_place_gives_the_same_bits(files: ModelFiles, encode: Encode, place: TextEncoderPlace) -> None:
    module = load(files)
    options = EngineOptions(text_encoder=place, embedding_cache_bytes=0)
    encoder = TextEncoder(begin_tokenizer(files), module, CPU, options)
    assert torch.equal(encoder.encode({"prompt": "a cat"})["prompt"], encode("a cat"))
    assert encoder.at_hand == (place is not TextEncoderPlace.HOST)


def test_weights_visit_the_device_and_leave_it() -> None:
    module = torch.nn.Linear(3, 3)
    before = module.weight.detach().clone()
    host = HostCopy(module, torch.device("meta"))
    with host.visit():
        assert all(parameter.is_meta for parameter in module.parameters())
    assert torch.equal(module.weight, before)


def test_the_cache_lets_go_of_what_was_not_used_for_longest() -> None:
    cache = EmbeddingCache(2 * 40)
    for number in range(3):
        cache.put((number,), torch.full((1, 10), float(number)))
        cache.get((0,))
    assert [cache.get((number,)) is not None for number in range(3)] == [True, False, True]
    assert cache.bytes == 80


def test_a_cache_of_no_bytes_keeps_nothing(tmp_path: Path) -> None:
    cache = EmbeddingCache(0)
    cache.put((1,), torch.zeros(1, 10))
    assert cache.get((1,)) is None
    assert cache.bytes == 0
