from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from wan22.errors import InvalidRequest
from wan22.parameters import Parameters
from wan22.solvers import Solver
from wan22_inference.engine.generate import Run, generate, render
from wan22_inference.engine.model import Model
from wan22_inference.engine.preparation import Preparation

Make = Callable[..., Parameters]
Load = Callable[[str], Model]
VARIANT = "i2v-a14b-tiny"


def quiet(between_steps: Callable[[], None] = lambda: None) -> Run:
    return Run(report=lambda _: None, should_stop=lambda: False, between_steps=between_steps)


def test_what_is_prepared_beside_another_generation_changes_the_bits_of_neither(
    tiny_model: Load, parameters: Make, picture: Callable[..., tuple[str, bytes]], tmp_path: Path
) -> None:
    (media, png), model = picture(1), tiny_model(VARIANT)
    chosen = [
        parameters(VARIANT, image=media, prompt=prompt, seed=seed, solver=Solver.LCM)
        for seed, prompt in enumerate(("a cat beside nobody", "a dog beside a cat"))
    ]
    alone = []
    for one in chosen:
        generate(model, one, {media: png}, tmp_path / "alone.mp4", quiet())
        alone.append((tmp_path / "alone.mp4").read_bytes())
    first, second = (Preparation(model, one, {media: png}) for one in chosen)
    second.on_host()
    steps = 0

    def between_steps() -> None:
        nonlocal steps
        steps += 1
        second.on_device()

    written = [
        render(model, first, tmp_path / "first.mp4", quiet(between_steps)),
        render(model, second, tmp_path / "second.mp4", quiet()),
    ]
    for rendered in written:
        rendered.wait()
    assert steps == chosen[0].num_inference_steps - 1
    assert [(tmp_path / name).read_bytes() for name in ("first.mp4", "second.mp4")] == alone


def test_each_thing_is_made_once_and_noise_leaves_the_source_of_chance_the_same(
    tiny_model: Load, parameters: Make, picture: Callable[..., tuple[str, bytes]]
) -> None:
    media, png = picture(1)
    preparation = Preparation(tiny_model(VARIANT), parameters(VARIANT, image=media), {media: png})
    assert preparation.text() is preparation.text()
    assert preparation.images()["image"] is preparation.images()["image"]
    (noise, one), (same, other) = preparation.noise(), preparation.noise()
    assert noise is same
    assert one is not other
    assert one.get_state().equal(other.get_state())


def test_what_cannot_be_made_ahead_is_told_ahead_and_again(tiny_model: Load, parameters: Make) -> None:
    media = "media/" + "0" * 64
    preparation = Preparation(tiny_model(VARIANT), parameters(VARIANT, image=media), {media: b"no png"})
    for _ in range(2):
        with pytest.raises(InvalidRequest, match="image cannot be read"):
            preparation.on_host()
