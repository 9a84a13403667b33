"""How much of a device's memory a generation needs at its peak, and which share of a DiT's blocks may stay there.

Weights are counted by whoever holds them, all of them also while some are still loaded. What loading takes beside them
(1.9 GB at most) is not in a worker's Holdings: it is gone seconds after a start. An engine counts it while it lasts,
and a generation that fits only without it waits until the load has ended.

Activations of the DiT are counted from the tensors that live at once in engine/transformer_block.py; those of the VAE
are bytes a pixel, measured on an H100, since they are the same tensors at every size. All figures are bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from wan22.economy import FEED_FORWARD_CHUNKS, TILES, Economy
from wan22.parameters import Parameters
from wan22.variants import MAX_PROMPT_TOKENS, TEMPORAL_STRIDE, Variant

SLACK = 512 << 20
"""Left free where blocks are streamed: what the allocator holds in pieces too small for the next tensor."""
TEXT_ACTIVATIONS = 200 << 20
"""UMT5-XXL on 512 tokens in bfloat16."""
WORKSPACE = 100 << 20
"""cuBLAS, the allocator's rounding, and the small tensors that are not counted."""


@dataclass(frozen=True)
class VaeMemory:
    """Peak of a VAE beyond its weights on one latent frame, measured on an H100 at two sizes."""

    fixed: int
    decode_a_pixel: int
    encode_a_pixel: int
    middle_channels: int
    """Of what its middle makes, which is kept for all latent frames while tile after tile is decoded."""


VAES: Mapping[int, VaeMemory] = {
    8: VaeMemory(fixed=770 << 20, decode_a_pixel=7_160, encode_a_pixel=14_000, middle_channels=384),
    16: VaeMemory(fixed=64 << 20, decode_a_pixel=7_260, encode_a_pixel=14_000, middle_channels=1024),
}
"""By pixels to a latent: 8 is VAE 2.1, 16 is VAE 2.2."""
HALO = 3
"""Latents around a tile that it takes beside its own, over all levels: it reads 12, but only where pixels are few."""


@dataclass(frozen=True, kw_only=True)
class Holdings:
    """What a worker holds, and how much it may."""

    limit: int
    """Most bytes of the device that it may use, contexts and libraries counted."""
    overhead: int
    """What the process takes of the device beside tensors: context and libraries."""
    text_encoder: int
    """Weights of the text encoder while it encodes."""
    text_encoder_stays: bool
    """Whether they stay on the device after."""
    expert: int
    """Weights of one expert beside its blocks."""
    block: int
    """Weights of one block of an expert; of one whose layers are quantised, where that is not all of them."""
    streamed: bool
    """Whether blocks can live in host memory."""
    vae: int
    """Weights of the VAE."""
    element: int = 2
    """Bytes of a number of the DiT's activations."""
    largest_block: int = 0
    """Weights of each of the variant's exact blocks, where the others are quantised; else, and if 0, those of any."""

    @property
    def room_for_block(self) -> int:
        """What any block fits into."""
        return max(self.block, self.largest_block)


@dataclass(frozen=True)
class Prediction:
    """The peak of each phase, blocks of the DiT left out where they can give way."""

    phases: Mapping[str, int]
    """By name: text, encode, denoise, decode."""
    resident_blocks: int
    """Of each expert: those that stay on the device while it denoises."""
    fits: bool

    @property
    def peak(self) -> int:
        """The largest of the phases."""
        return max(self.phases.values())


def predict(variant: Variant, parameters: Parameters, holdings: Holdings, economy: Economy) -> Prediction:
    """What a generation takes with these holdings, and how many blocks fit beside it."""
    always = holdings.overhead + WORKSPACE + holdings.vae + variant.experts * holdings.expert
    always += holdings.text_encoder if holdings.text_encoder_stays else 0
    visiting = 0 if holdings.text_encoder_stays else holdings.text_encoder
    all_blocks = variant.num_layers * holdings.block
    all_blocks += variant.exact_blocks * (holdings.room_for_block - holdings.block)
    denoise = always + denoise_activations(variant, parameters, holdings.element, economy)
    resident = variant.num_layers
    blocks = variant.experts * all_blocks
    if holdings.streamed:
        buffers = 2 * holdings.room_for_block
        room = holdings.limit - SLACK - denoise - buffers
        resident = min(max(room // holdings.block, 0), variant.num_layers) if holdings.block else variant.num_layers
        blocks = min(resident * holdings.block + buffers, all_blocks)
    vae = VAES[variant.spatial_stride]
    elsewhere = 0 if holdings.streamed else blocks  # streamed blocks are away while the others compute
    phases = {
        "text": always + visiting + TEXT_ACTIVATIONS + elsewhere,
        "denoise": denoise + blocks,
        "decode": always + elsewhere + vae_activations(variant, parameters, vae.decode_a_pixel, economy.decode_tile),
    }
    if parameters.image is not None:
        encode = vae_activations(variant, parameters, vae.encode_a_pixel, economy.encode_tile)
        phases["encode"] = always + elsewhere + encode
    return Prediction(phases, int(resident), max(phases.values()) <= holdings.limit)


def denoise_activations(variant: Variant, parameters: Parameters, element: int, economy: Economy) -> int:
    """Of one forward, with what lives beside it through the loop."""
    tokens = variant.tokens(parameters.width, parameters.height, parameters.num_frames)
    stream = tokens * variant.dim * element
    attention = 6 * stream  # the stream, its norm, queries, keys, values, and what comes of them
    at_once = min(tokens, economy.feed_forward_chunk or tokens)
    feed_forward = 3 * stream + at_once * variant.ffn_dim * element  # the stream, its norm, the result
    if economy.feed_forward_chunk is not None:
        feed_forward += stream  # the parts, and the whole that they become
    scales = (parameters.guidance_scale_high, parameters.guidance_scale_low)
    texts = 2 if any(scale is not None and scale > 1.0 for scale in scales) else 1
    contexts = texts * variant.num_layers * 2 * MAX_PROMPT_TOKENS * variant.dim * element
    latent_frames = (parameters.num_frames - 1) // TEMPORAL_STRIDE + 1
    area = (parameters.width // variant.spatial_stride) * (parameters.height // variant.spatial_stride)
    latents = latent_frames * area * 4 * (8 * variant.latent_channels + variant.in_channels)
    angles = 2 * 2 * tokens * 64 * 4
    return max(attention, feed_forward) + contexts + latents + angles


def vae_activations(variant: Variant, parameters: Parameters, a_pixel: int, tile: int | None) -> int:
    """Of the VAE on one latent frame, whole or tile by tile."""
    vae, stride = VAES[variant.spatial_stride], variant.spatial_stride
    width, height = parameters.width, parameters.height
    if tile is None:
        return vae.fixed + width * height * a_pixel
    latent_frames = (parameters.num_frames - 1) // TEMPORAL_STRIDE + 1
    middle = latent_frames * (width // stride) * (height // stride) * vae.middle_channels * 2
    width, height = (min(side, (tile + 2 * HALO) * stride) for side in (width, height))
    return vae.fixed + middle + width * height * a_pixel


def economise(
    variant: Variant, parameters: Parameters, holdings: Holdings, economy: Economy
) -> tuple[Economy, Prediction]:
    """The least economy, from the given one on, with which a generation fits; past the last step the tightest."""
    prediction = predict(variant, parameters, holdings, economy)
    while not prediction.fits:
        phase = max(prediction.phases, key=lambda name: prediction.phases[name])
        step = tighten(economy, phase)
        if step is None:
            return economy, prediction
        economy, prediction = step, predict(variant, parameters, holdings, step)
    return economy, prediction


def tighten(economy: Economy, phase: str) -> Economy | None:
    """The next step for a phase that lacks memory; None where there is none left."""
    if phase == "decode":
        return economy.tighter("decode_tile", TILES)
    if phase == "encode":
        return economy.tighter("encode_tile", TILES)
    if phase == "denoise":
        return economy.tighter("feed_forward_chunk", FEED_FORWARD_CHUNKS)
    return None


def what_fits(variant: Variant, parameters: Parameters, holdings: Holdings) -> str:
    """The most frames of this size that fit, or the advice to ask for a smaller size, in words."""
    for frames in range(parameters.num_frames - TEMPORAL_STRIDE, 0, -TEMPORAL_STRIDE):
        fewer = replace(parameters, num_frames=frames)
        if economise(variant, fewer, holdings, Economy())[1].fits:
            return f"at this size at most {frames} frames fit"
    return "at this size not even one frame fits: ask for a smaller one"
