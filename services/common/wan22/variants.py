"""The WAN2.2 variants: official defaults and limits (wan/configs of the official repository at 42bf4cfa)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from wan22.solvers import Solver

NEGATIVE_PROMPT = (
    "色调艳丽，过曝，静态，细节模糊不清，字幕，风格，作品，画作，画面，静止，整体发灰，最差质量，低质量，JPEG压缩残留，"
    "丑陋的，残缺的，多余的手指，画得不好的手部，画得不好的脸部，畸形的，毁容的，形态畸形的肢体，手指融合，静止不动的画面，"
    "杂乱的背景，三条腿，背景人很多，倒着走"
)
"""The official negative prompt of all variants here (sample_neg_prompt of wan/configs/shared_config.py)."""

MAX_PROMPT_TOKENS = 512
MIN_SIDE, MAX_SIDE = 64, 1536
MAX_AREA = 1024 * 1024
TEMPORAL_STRIDE = 4
"""Frames to one latent frame; the first frame has a latent of its own, so videos have 4n + 1 frames."""


@dataclass(frozen=True)
class Variant:
    """One WAN2.2 model: what a request gets when it says nothing, and the limits of what it may say."""

    name: str
    num_inference_steps: int
    guidance_scale_high: float
    guidance_scale_low: float | None
    """None with one expert."""
    boundary: float | None
    """Sigma at and above which the high-noise expert runs; None with one expert."""
    flow_shift: float
    fps: int
    num_frames: int
    max_frames: int
    width: int
    height: int
    size_multiple: int
    """VAE stride in space times the patch size, pixels."""
    image: Literal["refused", "optional", "required"]
    last_image: bool
    latent_channels: int
    in_channels: int
    """Channels that the DiT reads: latents, and for i2v 4 of mask and 16 of condition."""
    dim: int
    num_layers: int
    ffn_dim: int
    solver: Solver = Solver.UNIPC
    small: bool = False
    """Made for CPUs: computed in float32, and its DiT's sizes and latent channels are its model's own, see `sized`."""

    @property
    def experts(self) -> int:
        """2 for a high-noise and a low-noise expert, else 1."""
        return 1 if self.boundary is None else 2

    @property
    def exact_blocks(self) -> int:
        """Blocks at the start of a DiT that nothing is quantised in: errors made there grow through all that follow."""
        return 0 if self.small else 2

    @property
    def spatial_stride(self) -> int:
        """Pixels to one latent, in height and width; the DiT's patches are 2 x 2 latents."""
        return self.size_multiple // 2

    def sized(self, *, dim: int, num_layers: int, ffn_dim: int, latent_channels: int) -> Variant:
        """A small variant as one of its models has it: a published one has the sizes of the publication."""
        more = latent_channels - self.latent_channels
        reads = 2 if self.image == "required" else 1  # the condition's latents beside the video's
        return replace(
            self,
            dim=dim,
            num_layers=num_layers,
            ffn_dim=ffn_dim,
            latent_channels=latent_channels,
            in_channels=self.in_channels + reads * more,
        )

    def tokens(self, width: int, height: int, num_frames: int) -> int:
        """DiT tokens of one video: a patch covers 1 latent frame and `size_multiple` pixels a side."""
        latent_frames = (num_frames - 1) // TEMPORAL_STRIDE + 1
        return latent_frames * (height // self.size_multiple) * (width // self.size_multiple)


_T2V = Variant(
    name="t2v-a14b",
    num_inference_steps=40,
    guidance_scale_high=4.0,
    guidance_scale_low=3.0,
    boundary=0.875,
    flow_shift=12.0,
    fps=16,
    num_frames=81,
    max_frames=161,
    width=1280,
    height=720,
    size_multiple=16,
    image="refused",
    last_image=False,
    latent_channels=16,
    in_channels=16,
    dim=5120,
    num_layers=40,
    ffn_dim=13824,
)
_I2V = replace(
    _T2V,
    name="i2v-a14b",
    guidance_scale_high=3.5,
    guidance_scale_low=3.5,
    boundary=0.9,
    flow_shift=5.0,
    image="required",
    last_image=True,
    in_channels=36,
)
_TI2V = Variant(
    name="ti2v-5b",
    num_inference_steps=50,
    guidance_scale_high=5.0,
    guidance_scale_low=None,
    boundary=None,
    flow_shift=5.0,
    fps=24,
    num_frames=121,
    max_frames=241,
    width=1280,
    height=704,
    size_multiple=32,
    image="optional",
    last_image=False,
    latent_channels=48,
    in_channels=48,
    dim=3072,
    num_layers=30,
    ffn_dim=14336,
)


def _tiny(
    variant: Variant, *, dim: int, num_layers: int, ffn_dim: int, latent_channels: int = 16, guidance: float = 2.0
) -> Variant:
    """The same architecture and rules, small enough for a CPU; with the sizes of the trained family."""
    tiny = replace(
        variant,
        name=f"{variant.name}-tiny",
        num_inference_steps=20,
        guidance_scale_high=guidance,
        guidance_scale_low=None if variant.guidance_scale_low is None else guidance,
        flow_shift=5.0,
        solver=Solver.LCM,
        fps=8,
        num_frames=17,
        width=128,
        height=128,
        small=True,
    )
    return tiny.sized(dim=dim, num_layers=num_layers, ffn_dim=ffn_dim, latent_channels=latent_channels)


_TINY = (
    _tiny(_T2V, dim=160, num_layers=5, ffn_dim=192),
    _tiny(_I2V, dim=128, num_layers=3, ffn_dim=160, guidance=1.5),
    _tiny(_TI2V, dim=192, num_layers=4, ffn_dim=256, latent_channels=32),
)
VARIANTS: Mapping[str, Variant] = {variant.name: variant for variant in (_T2V, _I2V, _TI2V, *_TINY)}


def model_of(variant: str) -> str:
    """The registry model that `wan22 up` and the examples use for a variant."""
    return f"wan2.2-{variant}"
