"""The DiTs: flow matching of latents, for each expert in its own part of the noise, with the text encoder at first.

A clip's latents x0 and noise e make x = (1 - s) x0 + s e for a sigma s in [0, 1]; the DiT sees x and t = 1000 s, and
learns the velocity e - x0. The high-noise expert knows only s above the boundary, the low-noise one only s below it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import torch
from diffusers import WanTransformer3DModel
from tools.train_tiny import vae
from tools.train_tiny.judging import FILE as JUDGE
from tools.train_tiny.run import Run, store
from tools.train_tiny.text import Text
from torch import Tensor, nn

from wan22.variants import VARIANTS, Variant
from wan22_testing.shapes.captions import caption, plain_caption
from wan22_testing.shapes.judge import Judge
from wan22_testing.shapes.world import Scene, random_scene, render
from wan22_testing.tiny_models import new_transformer

DIM, LAYERS, FFN = 96, 6, 256
SIDES = ((64, 256, 0.5), (96, 128, 0.2), (128, 64, 0.3))
"""Sides of the clips, clips a step, and how often; all of WAN2.2's DiTs take any size."""
CLIPS = {64: 60_000, 96: 24_000, 128: 24_000}
DROPPED = 0.1
"""Prompts in training of which the DiT does not hear: guidance needs to know what it makes of none."""
LAST_IMAGE, FIRST_IMAGE = 0.3, 0.5
"""How often i2v sees the last frame too, and ti2v the first."""


@dataclass(frozen=True)
class Examples:
    """Clips of one size, as the DiT sees them; or a batch of them."""

    latents: Tensor
    """(clips, C, T, h, w)."""
    tokens: Tensor
    """(clips, longest caption)."""
    channels: Tensor | None = None
    """i2v: (clips, 20, T, h, w), mask and condition."""
    known: Tensor | None = None
    """ti2v: (clips, 1, T, 1, 1), 1 where latent frames are given."""

    def __getitem__(self, rows: Tensor) -> Examples:
        parts = (self.latents, self.tokens, self.channels, self.known)
        return Examples(*(None if part is None else part[rows] for part in parts))  # type: ignore[arg-type]


class Family:
    """What is trained together: a variant's experts, over its VAE."""

    def __init__(self, run: Run, variant: str, vae_folder: str) -> None:
        self.run = run
        self.variant: Variant = VARIANTS[variant]
        self.vae = vae.load(run.out / vae_folder, run.device)
        self.folder = run.out / variant
        self.names = ("transformer", "transformer_2")[: self.variant.experts]
        boundary = self.variant.boundary
        self.spans = ((0.0, 1.0),) if boundary is None else ((boundary, 1.0), (0.0, boundary))
        """Sigmas of each expert."""

    def experts(self) -> list[WanTransformer3DModel]:
        """As they were trained last, else new."""
        return [self._load(name) if (self.folder / name).exists() else self._new() for name in self.names]

    def _load(self, name: str) -> WanTransformer3DModel:
        return WanTransformer3DModel.from_pretrained(self.folder / name, torch_dtype=torch.float32).to(self.run.device)

    def _new(self) -> WanTransformer3DModel:
        new = new_transformer(self.variant, text_dim=Text.DIM, dim=DIM, ffn_dim=FFN, num_layers=LAYERS)
        return new.to(self.run.device)

    def save(self, averages: Sequence[WanTransformer3DModel]) -> None:
        """Writes the experts as bf16."""
        for name, expert in zip(self.names, averages, strict=True):
            store(WanTransformer3DModel.from_config(expert.config), expert, self.folder / name)

    def examples(self, text: Text, side: int, count: int) -> Examples:
        """New clips of one size."""
        made: list[Examples] = []
        for _ in range(0, count, 256):
            scenes = [random_scene(self.run.rng) for _ in range(min(256, count))]
            made.append(self.encoded(text, scenes, side, [caption(scene, self.run.rng) for scene in scenes]))
        columns = zip(*((one.latents, one.tokens, one.channels, one.known) for one in made), strict=True)
        return Examples(*(None if column[0] is None else torch.cat(column) for column in columns))  # type: ignore[arg-type]

    def encoded(self, text: Text, scenes: Sequence[Scene], side: int, captions: Sequence[str]) -> Examples:
        """Clips of these scenes."""
        clips = render(scenes, side, self.run.generator)
        latents = vae.encode(self.vae, clips)
        made = Examples(latents.to(torch.bfloat16), text.tokens(captions))
        if self.variant.image == "required":
            return replace(made, channels=self._image_channels(clips).to(torch.bfloat16))
        if self.variant.image == "optional":
            known = torch.zeros(len(clips), 1, latents.shape[2], 1, 1, device=clips.device)
            known[:, :, 0] = (self._draw(len(clips)) < FIRST_IMAGE).view(-1, 1, 1, 1)
            return replace(made, known=known)
        return made

    def _image_channels(self, clips: Tensor) -> Tensor:
        """The given frames in a video that is else grey, encoded, and which frames these are."""
        shown = torch.zeros_like(clips)
        shown[:, :, 0] = clips[:, :, 0]
        last = (self._draw(len(clips)) < LAST_IMAGE).float().view(-1, 1, 1, 1)
        shown[:, :, -1] = clips[:, :, -1] * last
        encoded = vae.encode(self.vae, shown)
        mask = torch.zeros_like(encoded[:, :4])
        mask[:, :, 0] = 1
        mask[:, -1, -1] = last[..., 0]
        return torch.cat([mask, encoded], 1)

    def _draw(self, count: int) -> Tensor:
        return torch.rand(count, generator=self.run.generator, device=self.run.device)


def velocity(expert: nn.Module, x: Tensor, sigma: Tensor, given: Examples, text: Tensor) -> Tensor:
    """What an expert makes of x at sigmas (clips,), with the variant's image condition."""
    times = 1000 * sigma
    if given.channels is not None:
        x = torch.cat([x, given.channels.to(x.dtype)], 1)
    if given.known is not None:  # each token has a time of its own: 0 in the frames that are given
        x = torch.lerp(x, given.latents.to(x.dtype), given.known)
        grid = (times.view(-1, 1, 1, 1, 1) * (1 - given.known)).expand(-1, -1, -1, *x.shape[3:])
        times = grid[..., ::2, ::2].flatten(1)
    device = x.device.type
    with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
        out: Tensor = expert(hidden_states=x, timestep=times, encoder_hidden_states=text, return_dict=False)[0]
    return out.float()


def flow_loss(expert: nn.Module, span: tuple[float, float], batch: Examples, text: Tensor, run: Run) -> Tensor:
    """Mean square error of the velocity at a sigma drawn from the span for each clip."""
    clean = batch.latents.float()
    drawn = torch.rand(len(clean), generator=run.generator, device=run.device)
    sigma = span[0] + (span[1] - span[0]) * drawn
    noise = torch.randn(clean.shape, generator=run.generator, device=run.device)
    share = sigma.view(-1, 1, 1, 1, 1)
    off = velocity(expert, torch.lerp(clean, noise, share), sigma, batch, text) - (noise - clean)
    wanted = 1.0 if batch.known is None else 1 - batch.known
    return (off.square() * wanted).mean()


@torch.no_grad()
def follow(
    experts: Sequence[nn.Module],
    family: Family,
    x: Tensor,
    given: Examples,
    texts: Sequence[Tensor],
    sigmas: Sequence[float],
) -> Tensor:
    """Where x, at the first of the sigmas, comes to at the last by Euler's steps.

    `texts` is the prompt's embedding and that of none, for guidance as the variant has it by default.
    """
    scales = (family.variant.guidance_scale_high, family.variant.guidance_scale_low)
    for sigma, following in pairwise(sigmas):
        number = next(number for number, (low, _) in enumerate(family.spans) if sigma >= low)
        at = torch.full((len(x),), sigma, device=x.device)
        prompted, unprompted = (velocity(experts[number], x, at, given, text) for text in texts)
        x = x + (following - sigma) * torch.lerp(unprompted, prompted, scales[number] or 1.0)
    return x if given.known is None else torch.lerp(x, given.latents.float(), given.known)


def shifted(steps: int, shift: float) -> list[float]:
    """Sigmas from 1 to 0, denser at the noisy end."""
    even = [1 - step / steps for step in range(steps + 1)]
    return [shift * sigma / (1 + (shift - 1) * sigma) for sigma in even]


def train_t2v(run: Run) -> None:
    """Into DIR/t2v-a14b-tiny, and the text encoder that is learnt with it."""
    _train(run, Family(run, "t2v-a14b-tiny", "vae21"), Text(run, trained=True))


def train_i2v(run: Run) -> None:
    """Into DIR/i2v-a14b-tiny."""
    _train(run, Family(run, "i2v-a14b-tiny", "vae21"), Text(run))


def train_ti2v(run: Run) -> None:
    """Into DIR/ti2v-5b-tiny."""
    _train(run, Family(run, "ti2v-5b-tiny", "vae22"), Text(run))


def _train(run: Run, family: Family, text: Text) -> None:
    examples = {side: family.examples(text, side, run.clips(CLIPS[side])) for side, _, _ in SIDES}
    run.say(f"{sum(len(one.latents) for one in examples.values())} clips are encoded")
    experts = family.experts()
    forwards: list[Any] = [torch.compile(expert) if run.device.type == "cuda" else expert for expert in experts]

    def loss(_passed: float) -> Tensor:
        side, count, _ = run.rng.choices(SIDES, [share for _, _, share in SIDES])[0]
        total = torch.zeros((), device=run.device)
        for forward, span in zip(forwards, family.spans, strict=True):
            have = len(examples[side].latents)
            rows = torch.randint(have, (run.batch(count),), generator=run.generator, device=run.device)
            batch = examples[side][rows]
            total = total + flow_loss(forward, span, batch, text.embed(batch.tokens, dropped=DROPPED), run)
        return total

    def save(averages: Sequence[Any]) -> None:
        family.save(averages[: len(experts)])
        text.save(averages[len(experts) :])
        stored, sigmas = family.experts(), shifted(20, family.variant.flow_shift)
        for side in (64, 128):
            share = share_right(
                family, text, side, lambda x, given, texts: follow(stored, family, x, given, texts, sigmas)
            )
            run.say(share)

    run.fit([*experts, *text.learning], loss, save)


Make = Callable[[Tensor, Examples, Sequence[Tensor]], Tensor]
"""Latents of noise, an image condition, and the embeddings of prompts and of none."""


def share_right(family: Family, text: Text, side: int, make: Make) -> str:
    """Of new prompts, how many the judge reads back right from what is made of them."""
    run = family.run
    count = run.clips(64)
    scenes = [random_scene(run.rng) for _ in range(count)]
    prompts = [plain_caption(scene) for scene in scenes]
    given = family.encoded(text, scenes, side, prompts)
    both = (text.embed(given.tokens), text.embed(text.tokens([""] * count)))
    noise = torch.randn(given.latents.shape, generator=run.generator, device=run.device)
    latents = make(noise, given, both)
    judge = Judge.load(run.out / JUDGE).to(run.device)
    right = judge.right(vae.decode(family.vae, latents), scenes)
    return f"{sum(right)} of {count} read right at {side}x{side}"
