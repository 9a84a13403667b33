from __future__ import annotations

import math
from dataclasses import asdict, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wan22.errors import InvalidRequest
from wan22.loras import Expert, Lora, RequestedLora
from wan22.parameter_messages import complete_from_message, from_message, to_message
from wan22.parameters import MAX_SEED, Parameters, RequestedParameters, Size, resolve, size_for_image
from wan22.profiles import Profile
from wan22.solvers import Solver
from wan22.variants import MAX_AREA, NEGATIVE_PROMPT, VARIANTS, Variant

T2V, I2V, TI2V = (VARIANTS[name] for name in ("t2v-a14b", "i2v-a14b", "ti2v-5b"))
IMAGE = "media/" + "a" * 64


def resolved(variant: str, image_size: Size | None = None, **given: Any) -> Parameters:
    requested = RequestedParameters(**{"prompt": "a red circle", **given})
    return resolve(VARIANTS[variant], requested, image_size=image_size, draw_seed=lambda: 7)


def refused(variant: str, **given: Any) -> dict[str, str]:
    with pytest.raises(InvalidRequest) as caught:
        resolved(variant, **given)
    return {violation.field: violation.description for violation in caught.value.violations}


def test_official_defaults_of_t2v() -> None:
    assert resolved("t2v-a14b") == Parameters(
        prompt="a red circle",
        negative_prompt=NEGATIVE_PROMPT,
        width=1280,
        height=720,
        num_frames=81,
        fps=16,
        num_inference_steps=40,
        guidance_scale_high=4.0,
        guidance_scale_low=3.0,
        flow_shift=12.0,
        boundary=0.875,
        seed=7,
        image=None,
        last_image=None,
        solver=Solver.UNIPC,
    )


def test_official_defaults_of_i2v_and_ti2v() -> None:
    i2v = resolved("i2v-a14b", (1280, 720), image=IMAGE)
    assert (i2v.guidance_scale_high, i2v.guidance_scale_low, i2v.boundary, i2v.flow_shift) == (3.5, 3.5, 0.9, 5.0)
    ti2v = resolved("ti2v-5b")
    assert (ti2v.width, ti2v.height, ti2v.num_frames, ti2v.fps) == (1280, 704, 121, 24)
    assert (ti2v.num_inference_steps, ti2v.guidance_scale_high, ti2v.flow_shift) == (50, 5.0, 5.0)
    assert (ti2v.guidance_scale_low, ti2v.boundary) == (None, None)


def test_an_absent_negative_prompt_is_the_official_one_and_an_empty_one_stays_empty() -> None:
    assert resolved("t2v-a14b").negative_prompt == NEGATIVE_PROMPT
    assert resolved("t2v-a14b", negative_prompt="").negative_prompt == ""


@pytest.mark.parametrize(
    ("variant", "field", "value", "nearest"),
    [
        ("t2v-a14b", "width", 831, "816 or 832"),
        ("ti2v-5b", "width", 1264, "1248 or 1280"),
        ("t2v-a14b", "height", 48, "64"),
        ("t2v-a14b", "width", 1552, "1536"),
        ("t2v-a14b", "width", 0, "64"),
        ("t2v-a14b", "num_frames", 80, "77 or 81"),
        ("t2v-a14b", "num_frames", 84, "81 or 85"),
        ("t2v-a14b", "num_frames", 165, "161"),
        ("ti2v-5b", "num_frames", 242, "241"),
        ("t2v-a14b", "num_frames", 0, "1"),
        ("t2v-a14b", "num_frames", -7, "1"),
        ("t2v-a14b", "num_inference_steps", 101, "100"),
        ("t2v-a14b", "num_inference_steps", 0, "1"),
        ("t2v-a14b", "guidance_scale_high", 0.5, "1.0"),
        ("t2v-a14b", "guidance_scale_low", 20.5, "20.0"),
        ("t2v-a14b", "flow_shift", 0.4, "0.5"),
        ("t2v-a14b", "fps", 61, "60"),
        ("t2v-a14b", "seed", -1, "0"),
        ("t2v-a14b", "boundary", 1.0, "0.875"),
    ],
)
def test_a_value_outside_the_rules_is_refused_with_the_nearest_valid_ones(
    variant: str, field: str, value: float, nearest: str
) -> None:
    problems = refused(variant, **{field: value})
    assert list(problems) == [f"parameters.{field}"]
    assert str(value) in problems[f"parameters.{field}"]
    assert nearest in problems[f"parameters.{field}"]


def test_every_wrong_field_is_named_at_once() -> None:
    problems = refused("t2v-a14b", prompt=" ", width=33, num_frames=2, flow_shift=math.nan, seed=-1)
    assert set(problems) == {f"parameters.{f}" for f in ("prompt", "width", "num_frames", "flow_shift", "seed")}


def test_too_large_an_area_names_the_height_that_fits() -> None:
    assert "use at most 816" in refused("t2v-a14b", width=1280, height=832)["parameters.height"]


def test_one_expert_has_neither_a_low_scale_nor_a_boundary() -> None:
    problems = refused("ti2v-5b", guidance_scale_low=3.0, boundary=0.9)
    assert set(problems) == {"parameters.guidance_scale_low", "parameters.boundary"}


def test_images_go_where_the_variant_takes_them() -> None:
    assert "parameters.image" in refused("i2v-a14b")
    assert "parameters.image" in refused("t2v-a14b", image=IMAGE)
    assert "parameters.last_image" in refused("ti2v-5b", image=IMAGE, last_image=IMAGE)
    assert "parameters.last_image" in refused("i2v-a14b", image=IMAGE, last_image=IMAGE, num_frames=1)
    assert "UploadMedia" in refused("i2v-a14b", image="cat.png")["parameters.image"]
    assert resolved("i2v-a14b", (64, 64), image=IMAGE, last_image=IMAGE).last_image == IMAGE


@pytest.mark.parametrize(
    ("variant", "area", "image", "size"),
    [
        (I2V, 832 * 480, (1920, 1080), (832, 464)),
        (I2V, 1280 * 720, (1280, 720), (1280, 720)),
        (I2V, 1280 * 720, (720, 1280), (720, 1280)),
        (TI2V, 1280 * 704, (1280, 704), (1280, 704)),
        (TI2V, 1280 * 704, (704, 1280), (704, 1280)),
        (TI2V, 1280 * 704, (1000, 1000), (960, 928)),
    ],
)
def test_the_size_follows_the_image(variant: Variant, area: int, image: Size, size: Size) -> None:
    assert size_for_image(variant, image, area) == size


@given(st.sampled_from(sorted(VARIANTS)), st.integers(1, 20_000), st.integers(1, 20_000))
def test_any_image_gives_a_size_within_the_limits(variant: str, width: int, height: int) -> None:
    rules = VARIANTS[variant]
    w, h = size_for_image(rules, (width, height), rules.width * rules.height)
    assert w % rules.size_multiple == h % rules.size_multiple == 0
    assert 64 <= w <= 1536
    assert 64 <= h <= 1536
    assert w * h <= MAX_AREA


@given(
    variant=st.sampled_from(sorted(VARIANTS)),
    width=st.none() | st.integers(-100, 3000),
    height=st.none() | st.integers(-100, 3000),
    num_frames=st.none() | st.integers(-10, 400),
    seed=st.none() | st.integers(-1, MAX_SEED),
    guidance=st.none() | st.floats(),
)
def test_whatever_is_asked_is_either_refused_or_valid(
    variant: str,
    width: int | None,
    height: int | None,
    num_frames: int | None,
    seed: int | None,
    guidance: float | None,
) -> None:
    rules = VARIANTS[variant]
    image = IMAGE if rules.image == "required" else None
    try:
        parameters = resolved(
            variant,
            (300, 200) if image else None,
            image=image,
            width=width,
            height=height,
            num_frames=num_frames,
            seed=seed,
            guidance_scale_high=guidance,
        )
    except InvalidRequest:
        return
    assert parameters.width * parameters.height <= MAX_AREA
    assert parameters.width % rules.size_multiple == parameters.height % rules.size_multiple == 0
    assert parameters.num_frames % 4 == 1
    assert 1.0 <= parameters.guidance_scale_high <= 20.0
    assert complete_from_message(to_message(parameters)) == parameters


def test_absent_and_empty_fields_are_told_apart_in_messages() -> None:
    message = to_message(resolved("t2v-a14b", negative_prompt="", seed=0))
    assert message.HasField("seed")
    requested = from_message(message)
    assert (requested.negative_prompt, requested.seed, requested.image) == ("", 0, None)


def test_the_digest_changes_with_every_parameter() -> None:
    base = resolved("i2v-a14b", (64, 64), image=IMAGE)
    assert base.digest == replace(base).digest
    assert base.digest != replace(base, seed=8).digest
    assert base.digest != replace(base, boundary=0.875).digest


def test_tokens_of_the_published_sizes() -> None:
    assert T2V.tokens(1280, 720, 81) == 75_600
    assert T2V.tokens(832, 480, 81) == 32_760
    assert TI2V.tokens(1280, 704, 121) == 27_280


def test_a_solver_without_a_name_is_refused_and_an_absent_one_is_the_official() -> None:
    assert resolved("t2v-a14b").solver is Solver.UNIPC
    message = to_message(resolved("t2v-a14b", solver=Solver.LCM))
    assert from_message(message).solver is Solver.LCM
    for number in (0, 99):
        message.solver = number  # type: ignore[assignment]  # an open enum takes any number from the wire
        with pytest.raises(InvalidRequest, match=f"solver is {number}"):
            from_message(message)


def test_turbo_locks_four_steps_without_guidance() -> None:
    turbo = resolved("t2v-a14b", profile=Profile.TURBO)
    assert (turbo.num_inference_steps, turbo.flow_shift, turbo.solver) == (4, 5.0, Solver.EULER)
    assert (turbo.guidance_scale_high, turbo.guidance_scale_low, turbo.boundary) == (1.0, 1.0, None)
    both = resolved("i2v-a14b", (64, 64), image=IMAGE, last_image=IMAGE, profile=Profile.TURBO)
    assert both.flow_shift == 16.0
    again = RequestedParameters(**asdict(turbo))  # as a worker checks what a gateway resolved
    assert resolve(VARIANTS["t2v-a14b"], again, image_size=None, draw_seed=lambda: 0) == turbo


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("num_inference_steps", 8),
        ("guidance_scale_high", 2.0),
        ("guidance_scale_low", 2.0),
        ("flow_shift", 3.0),
        ("boundary", 0.9),
        ("solver", Solver.LCM),
    ],
)
def test_what_turbo_locks_cannot_be_given_otherwise(field: str, value: object) -> None:
    problems = refused("t2v-a14b", profile=Profile.TURBO, **{field: value})
    assert list(problems) == [f"parameters.{field}"]
    assert "in profile TURBO" in problems[f"parameters.{field}"]


def test_the_5b_has_no_turbo() -> None:
    assert "no distilled weights" in refused("ti2v-5b", profile=Profile.TURBO)["parameters.profile"]


STYLE = "models/style/versions/sha256:" + "1" * 64
OTHER = "models/other/versions/sha256:" + "2" * 64


def test_loras_survive_their_message_and_what_they_leave_out_is_filled_in() -> None:
    asked = (RequestedLora(adapter=STYLE, expert=Expert.LOW, strength=-0.5), RequestedLora(adapter=OTHER))
    parameters = resolved("t2v-a14b", loras=asked)
    assert parameters.loras == (
        Lora(adapter=STYLE, expert=Expert.LOW, strength=-0.5),
        Lora(adapter=OTHER, expert=Expert.BOTH, strength=1.0),
    )
    assert complete_from_message(to_message(parameters)) == parameters
    assert parameters.digest != resolved("t2v-a14b", loras=asked[:1]).digest != resolved("t2v-a14b").digest


@pytest.mark.parametrize(
    ("variant", "lora", "field", "what"),
    [
        ("t2v-a14b", {"adapter": "style"}, "adapter", "use models/{model}/versions/{digest}"),
        ("t2v-a14b", {"adapter": STYLE, "strength": 11.0}, "strength", "use -10.0 to 10.0; the nearest is 10.0"),
        ("t2v-a14b", {"adapter": STYLE, "strength": math.nan}, "strength", "it must be a number"),
        ("ti2v-5b", {"adapter": STYLE, "expert": Expert.HIGH}, "expert", "ti2v-5b has one expert"),
    ],
)
def test_an_impossible_lora_is_refused(variant: str, lora: dict[str, Any], field: str, what: str) -> None:
    found = refused(variant, loras=(RequestedLora(**lora),))
    assert list(found) == [f"parameters.loras[0].{field}"]
    assert what in found[f"parameters.loras[0].{field}"]


def test_the_same_adapter_comes_once_for_each_expert() -> None:
    high, low, both = (RequestedLora(adapter=STYLE, expert=expert) for expert in Expert)
    assert len(resolved("t2v-a14b", loras=(high, low)).loras) == 2
    assert list(refused("t2v-a14b", loras=(low, both))) == ["parameters.loras[1].adapter"]
    assert next(iter(refused("t2v-a14b", loras=tuple([both] * 9)))) == "parameters.loras"


def test_an_unknown_expert_is_refused_by_number() -> None:
    message = to_message(resolved("t2v-a14b", loras=(RequestedLora(adapter=STYLE),)))
    message.loras[0].expert = 9  # type: ignore[assignment]  # as a later client might send
    with pytest.raises(InvalidRequest, match=r"loras\[0\]\.expert is 9: use one of HIGH \(1\)"):
        from_message(message)
