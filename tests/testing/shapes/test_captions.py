from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from wan22_testing import tiny_tokenizer
from wan22_testing.shapes.captions import caption, plain_caption, vocabulary
from wan22_testing.shapes.world import BACKGROUNDS, COLOURS, Group, Scene, random_scene


def test_a_plain_caption_names_number_colour_shape_and_motion_of_each_group() -> None:
    scene = Scene((Group(1, "orange", "circle", "right"), Group(2, "blue", "square", "still")), "dark")
    assert plain_caption(scene) == "an orange circle moves right and two blue squares stay still"


@given(seed=st.integers(0, 2**32))
def test_a_caption_has_each_colour_and_only_words_that_are_known(seed: int) -> None:
    rng = random.Random(seed)
    scene = random_scene(rng)
    text = caption(scene, rng).lower().replace(",", "").removesuffix(".")
    words = set(text.split())
    assert {group.colour for group in scene.groups} <= words
    assert words <= {*vocabulary(), *COLOURS, *BACKGROUNDS, "an"}


def test_each_word_of_captions_is_one_token() -> None:
    tokenizer = tiny_tokenizer.build()
    for word in (*vocabulary(), *COLOURS, *BACKGROUNDS, "an"):
        assert tokenizer.encode(word).tokens == [f"▁{word}", tiny_tokenizer.END]
