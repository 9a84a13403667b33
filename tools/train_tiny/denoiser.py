"""The DiTs: flow matching of latents, for each expert in its own part of the noise.

A clip's latents x0 and noise e make x = (1 - s) x0 + s e for a sigma s in [0, 1]; the DiT sees x and t = 1000 s, and
learns the velocity e - x0. The high-noise expert knows only s above the boundary, the low-noise one only s below it,
so that neither needs the other to learn.
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
from tools.train_tiny.text import DIM as TEXT_DIM
from tools.train_tiny.text import Text, padded
from torch import Tensor, nn

from wan22.variants import VARIANTS, Variant
from wan22_testing.shapes.captions import caption, plain_caption
from wan22_testing.shapes.judge import Judge
from wan22_testing.shapes.world import Scene, random_scene, render
from wan22_testing.tiny_models import new_transformer

DIM, LAYERS, FFN = 96, 6, 256
SIDES = ((64, 256, 96_000), (128, 128, 48_000))
"""Sides of the clips, clips a step, and clips to learn from; one step at one size, the next at the other."""
DROPPED = 0.1
"""Prompts in training of which the DiT does not hear: guidance needs to know what it makes of none."""
LAST_IMAGE, FIRST_IMAGE = 0.3, 0.5
"""How often i2v sees the last frame too, and ti2v the first."""


@dataclass(frozen=True)
class Examples:
    """Clips of one size, as the DiT sees them; or a batch of them."""

    latents: Tensor
    """(clips, C, T, h, w)."""
    text: Tensor
    """(clips, longest caption, text dim)."""
    channels: Tensor | None = None
    """i2v: (clips, 20, T, h, w), mask and condition."""
    known: Tensor | None = None
    """ti2v: (clips, 1, T, 1, 1), 1 where latent frames are given."""

    def parts(self) -> tuple[Tensor | None, ...]:
        """All of them."""
        return self.latents, self.text, self.channels, self.known

    def __getitem__(self, rows: Tensor) -> Examples:
        return Examples(*(None if part is None else part[rows] for part in self.parts()))  # type: ignore[arg-type]


class Family:
    """A variant's experts, over the VAE and the text encoder that were trained before."""

    def __init__(self, run: Run, variant: str) -> None:
        self.run = run
        self.variant: Variant = VARIANTS[variant]
        self.vae = vae.load(run.out / ("vae21" if self.variant.latent_channels == 16 else "vae22"), run.device)
        self.text = Text(run)
        self.text.encoder.requires_grad_(False)
        self.folder = run.out / variant
        self.names = ("transformer", "transformer_2")[: self.variant.experts]
        boundary = self.variant.boundary
        self.spans = ((0.0, 1.0),) if boundary is None else ((boundary, 1.0), (0.0, boundary))
        """Sigmas of each expert."""

    def there(self) -> bool:
        """Whether all experts have been saved."""
        return all((self.folder / name).exists() for name in self.names)

    def expert(self, number: int) -> WanTransformer3DModel:
        """As it was trained last, else new."""
        folder = self.folder / self.names[number]
        if folder.exists():
            found = WanTransformer3DModel.from_pretrained(folder, torch_dtype=torch.float32)
        else:
            found = new_transformer(self.variant, text_dim=TEXT_DIM, dim=DIM, ffn_dim=FFN, num_layers=LAYERS)
        return found.to(self.run.device)

    @torch.no_grad()
    def examples(self, side: int, count: int) -> Examples:
        """New clips of one size."""
        made = []
        for _ in range(0, count, 256):
            scenes = [random_scene(self.run.rng) for _ in range(min(256, count))]
            made.append(self.encoded(scenes, side, [caption(scene, self.run.rng) for scene in scenes]).parts())
        columns = zip(*made, strict=True)
        return Examples(*(None if column[0] is None else torch.cat(column) for column in columns))  # type: ignore[arg-type]

    @torch.no_grad()
    def encoded(self, scenes: Sequence[Scene], side: int, captions: Sequence[str]) -> Examples:
        """Clips of these scenes."""
        clips = render(scenes, side, self.run.generator)
        latents = vae.encode(self.vae, clips)
        made = Examples(latents.bfloat16(), self.text.embed(captions).bfloat16())
        if self.variant.image == "required":
            return replace(made, channels=self._image_channels(clips).bfloat16())
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


def train(run: Run, variant: str, number: int) -> None:
    """Into DIR/VARIANT: the expert of this number."""
    family = Family(run, variant)
    examples = [family.examples(side, run.clips(count)) for side, _, count in SIDES]
    run.say(f"{sum(len(one.latents) for one in examples)} clips are encoded")
    expert = family.expert(number)
    forward: Any = torch.compile(expert, dynamic=False) if run.device.type == "cuda" else expert
    unprompted, step = family.text.unprompted(), 0

    def loss() -> Tensor:
        nonlocal step
        step += 1
        have, count = examples[step % len(SIDES)], run.batch(SIDES[step % len(SIDES)][1])
        batch = have[torch.randint(len(have.latents), (count,), generator=run.generator, device=run.device)]
        text = padded(batch.text).float()
        text[: round(count * DROPPED)] = unprompted[step // 2 % len(unprompted)]
        return flow_loss(forward, family.spans[number], batch, text, run)

    def save(averages: Sequence[Any]) -> None:
        store(WanTransformer3DModel.from_config(expert.config), averages[0], family.folder / family.names[number])
        if family.there():
            stored = [family.expert(each) for each in range(len(family.names))]
            sigmas = shifted(20, family.variant.flow_shift)
            say_right(family, lambda x, given, texts: follow(stored, family, x, given, texts, sigmas))

    run.fit([expert], loss, save)


Make = Callable[[Tensor, Examples, Sequence[Tensor]], Tensor]
"""Latents of noise, an image condition, and the embeddings of prompts and of none."""


@torch.no_grad()
def say_right(family: Family, make: Make) -> None:
    """Says of how many new prompts the judge reads back right what is made of them."""
    run, judge = family.run, Judge.load(family.run.out / JUDGE).to(family.run.device)
    count = run.clips(128)
    for side in (64, 128):
        scenes = [random_scene(run.rng) for _ in range(count)]
        prompts = [plain_caption(scene) for scene in scenes]
        given = family.encoded(scenes, side, prompts)
        texts = (padded(given.text).float(), family.text.unprompted()[:1].expand(count, -1, -1))
        noise = torch.randn(given.latents.shape, generator=run.generator, device=run.device)
        right = judge.right(vae.decode(family.vae, make(noise, given, texts)), scenes)
        run.say(f"{sum(right)} of {count} prompts read right at {side}x{side}")
