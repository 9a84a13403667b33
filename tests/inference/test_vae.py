"""Our VAE against diffusers', whole and in tiles."""

from __future__ import annotations

import copy
import logging
from typing import Any

import pytest
import torch
from torch import Tensor

from wan22.errors import Cancelled, InternalError, Reason
from wan22_inference.engine.vae.checkpoint_names import checkpoint_names
from wan22_inference.engine.vae.config import read_vae_config

from . import vaes

KINDS = list(vaes.CONFIGS)
SIZES = [(1, 4, 6), (5, 6, 4), (17, 5, 5), (33, 4, 4)]
"""Frames, and height and width in latents."""


def relative_error(value: Tensor, reference: Tensor) -> float:
    return float((value - reference).norm() / reference.norm())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("frames", "height", "width"), SIZES)
@torch.inference_mode()
def test_it_decodes_as_diffusers_does(kind: str, frames: int, height: int, width: int) -> None:
    ours, theirs = vaes.both(kind)
    x = vaes.latents(ours, frames, height, width)
    mean, std = (torch.tensor(values).view(1, -1, 1, 1, 1) for values in (ours.config.mean, ours.config.std))
    expected = theirs.decode(x * std + mean, return_dict=False)[0]
    decoded = vaes.decode(ours, x).clamp(-1.0, 1.0)
    stride = 8 if kind.startswith("2.1") else 16
    assert decoded.shape == (1, 3, frames, height * stride, width * stride)
    assert relative_error(decoded, expected) < 1e-5
    assert expected.std() > 0.05


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("frames", "height", "width"), SIZES)
@torch.inference_mode()
def test_it_encodes_as_diffusers_does(kind: str, frames: int, height: int, width: int) -> None:
    ours, theirs = vaes.both(kind)
    stride = 8 if kind.startswith("2.1") else 16
    video = vaes.pixels(frames, height * stride, width * stride)
    mean, std = (torch.tensor(values).view(1, -1, 1, 1, 1) for values in (ours.config.mean, ours.config.std))
    expected = (theirs.encode(video).latent_dist.mode() - mean) / std
    encoded = ours.encode(video, lambda: None)
    assert encoded.shape == expected.shape == (1, ours.config.latent_channels, (frames - 1) // 4 + 1, height, width)
    assert relative_error(encoded, expected) < 1e-5


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", ["2.1", "2.2"])
def test_it_decodes_in_16_bits_as_truly_as_diffusers_and_encodes_in_float32_all_the_same(
    kind: str, dtype: torch.dtype
) -> None:
    ours, theirs = vaes.both(kind)
    fewer, _ = vaes.both(kind, dtype)
    x = vaes.latents(ours, 5, 4, 3)  # a CPU is slow in float16
    mean, std = (torch.tensor(values).view(1, -1, 1, 1, 1) for values in (ours.config.mean, ours.config.std))
    raw = x * std + mean
    with torch.inference_mode():
        exact = theirs.decode(raw, return_dict=False)[0]
        expected = copy.deepcopy(theirs).to(dtype).decode(raw.to(dtype), return_dict=False)[0].float().clamp(-1.0, 1.0)
        decoded = vaes.decode(fewer, x)
    assert decoded.dtype is dtype
    error = relative_error(decoded.float().clamp(-1.0, 1.0), exact)
    assert 1e-4 < error <= relative_error(expected, exact)
    video = vaes.pixels(5, *(fewer.config.spatial_stride * side for side in (4, 3)))
    assert torch.equal(fewer.encode(video, lambda: None), ours.encode(video, lambda: None))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("side", [5, 9, 16])
@torch.inference_mode()
def test_tiles_give_the_frames_of_the_whole(kind: str, side: int) -> None:
    ours, _ = vaes.both(kind)
    x = vaes.latents(ours, 5, 21, 18)
    whole = vaes.decode(ours, x)
    tiled = vaes.decode(ours, x, side)
    assert (tiled - whole).abs().max() <= 1e-3


@pytest.mark.parametrize("kind", KINDS)
@torch.inference_mode()
def test_tiles_give_the_latents_of_the_whole(kind: str) -> None:
    ours, _ = vaes.both(kind)
    stride = 8 if kind.startswith("2.1") else 16
    video = vaes.pixels(5, 18 * stride, 15 * stride)
    whole = ours.encode(video, lambda: None)
    assert (ours.encode(video, lambda: None, side=7) - whole).abs().max() <= 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_every_parameter_has_the_name_that_diffusers_gives_it(kind: str) -> None:
    ours, theirs = vaes.both(kind)
    config = read_vae_config(vaes.CONFIGS[kind])
    names = [checkpoint_names(name, config) for name in ours.state_dict()]
    assert sorted(diffusers for diffusers, _ in names) == sorted(theirs.state_dict())
    assert len({official for _, official in names}) == len(names)


def test_a_stop_is_seen_before_each_latent_frame() -> None:
    ours, _ = vaes.both("2.1")
    asked: list[None] = []

    def check() -> None:
        asked.append(None)
        if len(asked) == 3:
            raise Cancelled("stopped")

    with pytest.raises(Cancelled):
        list(ours.decode(vaes.latents(ours, 33, 4, 4), check))
    assert len(asked) == 3


def test_an_overflow_in_float16_goes_on_in_bfloat16_and_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    half, _ = vaes.both("2.1", torch.float16)
    x = vaes.latents(half, 5, 4, 4)
    plain = list(half.decode(x, lambda: None))
    assert len(plain) == 5
    assert "overflowed" not in caplog.text
    with torch.no_grad():
        half.decoder.conv_in.weight.mul_(1e5)
    with caplog.at_level(logging.WARNING):
        assert len(list(half.decode(x, lambda: None))) == 5
        assert len(list(half.decode(x, lambda: None))) == 5
    assert caplog.text.count("goes on in bfloat16") == 1
    vaes.both.cache_clear()


@pytest.mark.parametrize("kind", KINDS)
def test_nan_is_never_a_frame(kind: str) -> None:
    ours, _ = vaes.both(kind)
    x = vaes.latents(ours, 9, 4, 4)
    x[:, :, 1] = float("nan")
    frames: list[Any] = []
    with pytest.raises(InternalError, match="first in latent frame 2 of 3") as caught:
        frames.extend(ours.decode(x, lambda: None))
    assert caught.value.reason is Reason.NOT_FINITE
