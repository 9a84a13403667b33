from __future__ import annotations

import json

import pytest

from wan22.errors import InvalidRequest
from wan22.loras import Expert, RequestedLora
from wan22.parameters import Parameters, RequestedParameters, resolve
from wan22.recipe import Recipe, differences, numerics_digest
from wan22.variants import VARIANTS

VERSION = "models/wan2.2-t2v-a14b-tiny/versions/sha256:" + "a" * 64
NUMERICS = {"library torch": "2.11.0", "device": "CPU, AVX2"}


def parameters() -> Parameters:
    requested = RequestedParameters(prompt="a cat, 猫", seed=3)
    return resolve(VARIANTS["t2v-a14b-tiny"], requested, image_size=None, draw_seed=lambda: 0)


def recipe() -> Recipe:
    return Recipe.make("t2v-a14b-tiny", VERSION, parameters(), NUMERICS)


def test_a_recipe_survives_its_json_form() -> None:
    again = Recipe.from_json(recipe().to_json())
    assert again == recipe()
    resolved = resolve(VARIANTS["t2v-a14b-tiny"], again.requested(), image_size=None, draw_seed=lambda: 99)
    assert resolved == parameters()


def test_loras_survive_it_too_and_are_not_told_where_there_are_none() -> None:
    loras = (RequestedLora(adapter=VERSION, expert=Expert.HIGH, strength=0.5),)
    requested = RequestedParameters(prompt="a cat", seed=3, loras=loras)
    styled = resolve(VARIANTS["t2v-a14b-tiny"], requested, image_size=None, draw_seed=lambda: 0)
    made = Recipe.make("t2v-a14b-tiny", VERSION, styled, NUMERICS)
    assert Recipe.from_json(made.to_json()) == made
    assert made.requested().loras == loras
    assert "loras" not in recipe().parameters


def test_the_json_form_is_canonical() -> None:
    text = recipe().to_json()
    assert text == json.dumps(json.loads(text), sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    assert "猫" in text


def test_texts_can_be_left_out_and_put_back() -> None:
    hidden = recipe().without_texts()
    assert "cat" not in hidden.to_json()
    assert hidden.hidden_texts == ["prompt", "negative_prompt"]
    assert hidden.with_text("prompt", "a cat, 猫").hidden_texts == ["negative_prompt"]
    with pytest.raises(InvalidRequest, match="prompt is not the text"):
        hidden.with_text("prompt", "a dog")
    assert recipe().hidden_texts == []


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"wan22_recipe": 1}', '{"wan22_recipe": 1, "x": 2}'])
def test_what_is_no_recipe_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match="no recipe"):
        Recipe.from_json(text)


def test_a_later_format_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="format 2"):
        Recipe.from_json(recipe().to_json().replace('"wan22_recipe":1', '"wan22_recipe":2'))


def test_numerics_that_differ_are_named() -> None:
    here = {"library torch": "2.12.0", "option threads": "2", "device": "CPU, AVX2"}
    assert numerics_digest(NUMERICS) == numerics_digest(dict(reversed(NUMERICS.items())))
    assert numerics_digest(NUMERICS) != numerics_digest(here)
    assert differences(NUMERICS, here) == [
        "library torch was 2.11.0, is 2.12.0",
        "option threads was absent, is 2",
    ]
