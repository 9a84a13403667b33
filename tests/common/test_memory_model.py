from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wan22.economy import EMPTY, Economy
from wan22.memory_messages import economy_from_message, economy_message, holdings_from_message, memory_message
from wan22.memory_model import Holdings, economise, predict, what_fits
from wan22.parameters import Parameters, RequestedParameters, resolve
from wan22.variants import VARIANTS, Variant

T2V, TI2V = VARIANTS["t2v-a14b"], VARIANTS["ti2v-5b"]
GIB = 1 << 30


def parameters(variant: Variant = T2V, **given: Any) -> Parameters:
    requested = RequestedParameters(prompt="a cat", **given)
    return resolve(variant, requested, image_size=None, draw_seed=lambda: 0)


def holdings(limit: int = 80 * GIB, **changed: Any) -> Holdings:
    """The A14B's in bfloat16."""
    block = 2 * (8 * 5120 * 5120 + 2 * 5120 * 13824)
    whole = Holdings(
        limit=limit,
        overhead=GIB // 2,
        text_encoder=11 * GIB,
        text_encoder_stays=True,
        expert=GIB // 2,
        block=block,
        streamed=False,
        vae=GIB // 2,
    )
    return replace(whole, **changed)


def test_both_experts_fit_on_80_gib_and_not_on_24_unless_streamed() -> None:
    chosen = parameters(width=832, height=480)
    assert predict(T2V, chosen, holdings(), EMPTY).fits
    assert not economise(T2V, chosen, holdings(24 * GIB), EMPTY)[1].fits
    small = holdings(24 * GIB, streamed=True, text_encoder_stays=False)
    prediction = predict(T2V, chosen, small, EMPTY)
    assert prediction.fits
    assert 0 < prediction.resident_blocks < 40


def test_the_decoder_is_cut_into_tiles_where_it_is_what_does_not_fit() -> None:
    tight = holdings(8 * GIB, streamed=True, text_encoder_stays=False, text_encoder=0)
    economy, prediction = economise(T2V, parameters(width=1024, height=1024, num_frames=5), tight, EMPTY)
    assert prediction.fits
    assert economy == Economy(decode_tile=32)


def test_what_fits_is_said_in_frames() -> None:
    tight = holdings(8 * GIB, streamed=True, text_encoder_stays=False, text_encoder=0)
    chosen = parameters(width=1280, height=720, num_frames=161)
    assert not economise(T2V, chosen, tight, EMPTY)[1].fits
    advice = what_fits(T2V, chosen, tight)
    frames = int(advice.split()[-3])
    assert 1 <= frames < 161
    assert economise(T2V, replace(chosen, num_frames=frames), tight, EMPTY)[1].fits
    assert not economise(T2V, replace(chosen, num_frames=frames + 4), tight, EMPTY)[1].fits


sizes = st.integers(4, 64).map(lambda n: n * 16)


@given(sizes, sizes, st.integers(0, 40), st.integers(0, 10))
def test_more_pixels_frames_or_limits_are_never_less_memory(width: int, height: int, quarters: int, tile: int) -> None:
    chosen = replace(parameters(), width=width, height=height, num_frames=4 * quarters + 1)
    more = replace(chosen, width=width + 16, num_frames=chosen.num_frames + 4)
    held, economy = holdings(streamed=bool(tile % 2)), Economy(decode_tile=tile + 4)
    few, many = predict(T2V, chosen, held, economy), predict(T2V, more, held, economy)
    assert all(few.phases[name] <= many.phases[name] for name in few.phases if name != "denoise")
    assert few.resident_blocks >= many.resident_blocks
    assert predict(T2V, chosen, replace(held, limit=held.limit + GIB), economy).fits or not few.fits


@pytest.mark.parametrize("limit", range(6, 30, 2))
def test_larger_blocks_at_the_start_come_by_turns_and_are_counted(limit: int) -> None:
    """Those of a quantised model are twice as large as the others."""
    held = holdings(limit * GIB, streamed=True, text_encoder_stays=False, text_encoder=0)
    quantised = replace(held, block=held.block // 2, largest_block=held.block)
    chosen = parameters(width=512, height=512, num_frames=33)
    prediction, of_bf16 = predict(T2V, chosen, quantised, EMPTY), predict(T2V, chosen, held, EMPTY)
    assert prediction.resident_blocks >= of_bf16.resident_blocks
    assert prediction.phases["denoise"] <= max(held.limit, of_bf16.phases["denoise"])
    larger_stay = max(prediction.resident_blocks - 38, 0)
    buffers = min(2, 40 - prediction.resident_blocks)
    held_bytes = prediction.resident_blocks * quantised.block + larger_stay * quantised.block + buffers * held.block
    without = predict(T2V, chosen, replace(quantised, block=0, largest_block=0), EMPTY).phases["denoise"]
    assert without + held_bytes <= prediction.phases["denoise"]


def test_larger_blocks_are_counted_where_all_stay() -> None:
    quantised = holdings(largest_block=holdings().block, block=holdings().block // 2)
    chosen = parameters(width=512, height=512)
    less = predict(T2V, chosen, holdings(), EMPTY).peak - predict(T2V, chosen, quantised, EMPTY).peak
    assert less == 2 * 38 * quantised.block


@given(st.sampled_from([EMPTY, Economy(decode_tile=16), Economy(encode_tile=8, feed_forward_chunk=4096)]))
def test_economy_and_holdings_survive_their_messages(economy: Economy) -> None:
    assert economy_from_message(economy_message(economy)) == economy
    assert holdings_from_message(memory_message(holdings())) == holdings()


def test_the_tighter_of_two_economies_holds() -> None:
    one, other = Economy(decode_tile=16), Economy(decode_tile=8, feed_forward_chunk=4096)
    assert one.with_at_least(other) == Economy(decode_tile=8, feed_forward_chunk=4096)
    assert one.with_at_least(EMPTY) == one


@pytest.mark.parametrize("variant", [T2V, TI2V])
def test_a_chunked_feed_forward_takes_no_more(variant: Variant) -> None:
    chosen = parameters(variant)
    whole = predict(variant, chosen, holdings(), EMPTY).phases["denoise"]
    assert predict(variant, chosen, holdings(), Economy(feed_forward_chunk=4096)).phases["denoise"] <= whole
