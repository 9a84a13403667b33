"""Previews beside a denoise loop at full latent size: no bit changes, and no step waits; tiny on a CPU."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from wan22.solvers import Solver
from wan22_inference.engine.preview import Preview
from wan22_inference.engine.rgb_projection import RgbProjection, fit_rgb_projection
from wan22_inference.engine.vae.config import read_vae_config
from wan22_inference.engine.vae.vae import Vae
from wan22_testing.forwards import free_memory, peak_bytes, seconds
from wan22_testing.sizes import VAE_22

from .loop import T2V, TI2V, TINY, Loop

Figures = list[dict[str, Any]]
VAES = {"2.1": {"base_dim": 96}, "2.2": VAE_22 | {"base_dim": 160, "decoder_base_dim": 256}}
TINY_VAES = {"2.1": {"base_dim": 4}, "2.2": VAE_22 | {"base_dim": 8, "decoder_base_dim": 12}}


def check_bits(loop: Loop, solver: Solver) -> None:
    shown: list[Preview] = []
    assert torch.equal(loop.run(solver, show=shown.append), loop.run(solver))
    assert shown


def random_vae(config: dict[str, Any], device: torch.device, dtype: torch.dtype) -> Vae:
    with torch.device("meta"):
        vae = Vae(read_vae_config(config), dtype)
    vae.to_empty(device=device).requires_grad_(requires_grad=False)
    generator = torch.Generator(device).manual_seed(1)
    for parameter in vae.parameters():
        noise = torch.randn(parameter.shape, generator=generator, device=device)
        parameter.data = (noise / max(1, parameter[0].numel()) ** 0.5).to(parameter.dtype)
    vae.to_channels_last()
    return vae


def check_fit(vae: Vae, device: torch.device) -> RgbProjection:
    projection = fit_rgb_projection(vae, vae.config.spatial_stride, device)
    assert projection.weights.shape == (vae.config.latent_channels, 3)
    assert bool(projection.weights.isfinite().all())
    return projection


@pytest.fixture(scope="module", params=[T2V, TI2V], ids=str)
def loop(request: pytest.FixtureRequest, cuda: torch.device) -> Iterator[Loop]:
    yield Loop(request.param, cuda)
    free_memory(cuda)


@pytest.mark.gpu
def test_previews_change_no_bit(loop: Loop) -> None:
    check_bits(loop, Solver.UNIPC)


@pytest.mark.gpu
def test_previews_do_not_stall_the_steps(loop: Loop, figures: Figures) -> None:
    shown: list[Preview] = []
    loop.run(num_steps=12)
    without = loop.seconds_a_step()
    loop.run(num_steps=12, show=shown.append)
    beside = loop.seconds_a_step()
    assert len(shown) >= 3
    what = f"a step of {loop.variant.name}, 2 layers, with a preview beside it whenever the last is done"
    figures.append({"what": what, "unit": "s", "value": beside, "peer": without})
    assert beside < 1.05 * without


@pytest.mark.gpu
@pytest.mark.parametrize("name", VAES)
def test_the_projection_is_fitted_at_full_size(name: str, cuda: torch.device, figures: Figures) -> None:
    vae = random_vae(VAES[name], cuda, torch.bfloat16)

    def fit() -> torch.Tensor:
        return check_fit(vae, cuda).weights

    free_memory(cuda)
    row = {"what": f"fitting the colours of previews to VAE {name}, once a load", "unit": "s", "goal": 0.5}
    figures.append(row | {"value": seconds(fit, cuda), "peak_bytes": peak_bytes(cuda)})


@pytest.mark.parametrize("solver", list(Solver))
def test_previews_change_no_bit_at_tiny_sizes(solver: Solver) -> None:
    check_bits(Loop(TINY, torch.device("cpu")), solver)


@pytest.mark.parametrize("name", TINY_VAES)
def test_the_projection_is_fitted_at_tiny_sizes(name: str) -> None:
    device = torch.device("cpu")
    check_fit(random_vae(TINY_VAES[name], device, torch.float32), device)
