"""The DiTs: flow matching of latents, for each expert in its own part of the noise.

A clip's latents x0 and noise e make x = (1 - s) x0 + s e for a sigma s in [0, 1]; the DiT sees x and t = 1000 s, and
learns the velocity e - x0. The high-noise expert knows only s above the boundary, the low-noise one only s below it,
so that neither needs the other to learn.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from diffusers import WanTransformer3DModel
from tools.train_tiny import vae
from tools.train_tiny.run import Pool, Run, store
from tools.train_tiny.text import DIM as TEXT_DIM
from tools.train_tiny.text import FoldedText, Text, folded
from torch import Tensor, nn

from wan22.variants import VARIANTS, Variant
from wan22_testing.shapes.captions import caption, plain_caption
from wan22_testing.shapes.judge import Judge
from wan22_testing.shapes.world import FRAMES, Scene, random_scene, render
from wan22_testing.tiny_models import new_transformer
from wan22_testing.trained_parts import JUDGE

HEAD = 32
"""Channels of an attention head."""
SKEW = 3.0
"""Sigmas are drawn more often from the noisy end of an expert's span, where pictures are decided; 1 is evenly."""
SIDES = ((128, 8_192), (64, 16_384), (128, 8_192))
"""Sides of the clips, and clips to learn from at a time; by turns."""
TOKENS, CLIPS = 40_960, 512
"""Tokens a step, about, and clips at most: four times as many tokens take twice the time."""
STEPS_A_NEW_CLIP = 16
"""How many steps learn from a clip, on average, before a new one has its place; with 192 a high-noise expert came to
know its clips by heart, and grew worse on others."""
NEW = 64
"""Clips that are made at a time."""
PROMPTED = 8
"""Of ten steps, those that hear their prompts: guidance needs to know what a DiT makes of none."""
LAST_IMAGE, FIRST_IMAGE = 0.3, 0.5
"""How often i2v sees the last frame too, and ti2v the first."""


class Examples(NamedTuple):
    """Clips of one size, as the DiT sees them."""

    latents: Tensor
    """(clips, C, T, h, w)."""
    text: Tensor
    """(clips, tokens, text dim)."""
    image: Tensor
    """i2v: (clips, 20, T, h, w), mask and condition; ti2v: (clips, 1, T, 1, 1), 1 where latent frames are given."""


class Family:
    """A variant's experts, over the VAE and the text encoder that were trained before."""

    def __init__(self, run: Run, variant: str) -> None:
        self.run = run
        self.variant = VARIANTS[variant]
        self.vae = vae.load(run.out / ("vae21" if self.variant.latent_channels == 16 else "vae22"), run.device)
        self.text = Text(run)
        self.text.encoder.requires_grad_(False)
        self.unprompted = self.text.unprompted()
        self.folder = run.out / variant
        self.names = ("transformer", "transformer_2")[: self.variant.experts]
        boundary = self.variant.boundary
        self.spans = ((0.0, 1.0),) if boundary is None else ((boundary, 1.0), (0.0, boundary))
        """Sigmas of each expert."""
        self.head = HEAD
        """Of a new expert."""

    def there(self) -> bool:
        """Whether all experts have been saved."""
        return all((self.folder / name).exists() for name in self.names)

    def expert(self, number: int) -> WanTransformer3DModel:
        """As it was trained last, else new."""
        folder = self.folder / self.names[number]
        if folder.exists():
            found = WanTransformer3DModel.from_pretrained(folder, torch_dtype=torch.float32)
        else:
            found = new_transformer(self.variant, text_dim=TEXT_DIM, heads=self.variant.dim // self.head)
            turn_to_words(found)
        found.set_attn_processor(FoldedText())
        return found.to(self.run.device)

    @torch.no_grad()
    def examples(self, side: int, count: int) -> Examples:
        """New clips of one size."""
        scenes = [random_scene(self.run.rng) for _ in range(count)]
        return self.encoded(scenes, side, [caption(scene, self.run.rng) for scene in scenes])

    @torch.no_grad()
    def encoded(self, scenes: Sequence[Scene], side: int, captions: Sequence[str]) -> Examples:
        """Clips of these scenes."""
        clips = render(scenes, side, self.run.generator)
        latents = vae.encode(self.vae, clips)
        text = folded(self.text.embed(self.text.tokens(captions)))
        if self.variant.image == "required":
            image = self._image_channels(clips)
        else:
            image = torch.zeros(len(clips), 1, latents.shape[2], 1, 1, device=clips.device)
            if self.variant.image == "optional":
                image[:, :, 0] = (self._draw(len(clips)) < FIRST_IMAGE).view(-1, 1, 1, 1)
        return Examples(latents.bfloat16(), text.bfloat16(), image.bfloat16())

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


@torch.no_grad()
def turn_to_words(expert: WanTransformer3DModel) -> None:
    """Turns a new expert's queries away from the key of empty tokens, of which a prompt has hundreds.

    Keys are normed, so that empty ones are as loud as words; without this, words get a tenth of the attention.
    """
    empty = expert.condition_embedder.text_embedder(torch.zeros(1, 1, TEXT_DIM))
    for block in expert.blocks:
        attention = block.attn2
        attention.to_q.bias -= attention.norm_k(attention.to_k(empty))[0, 0]
        attention.norm_q.weight.fill_(1.5)
        attention.norm_k.weight.fill_(1.5)


def velocity(variant: Variant, expert: nn.Module, x: Tensor, sigma: Tensor, given: Examples) -> Tensor:
    """What an expert makes of x at sigmas (clips,), with the variant's image condition."""
    times, image = 1000 * sigma, given.image.to(x.dtype)
    if variant.image == "required":
        x = torch.cat([x, image], 1)
    elif variant.image == "optional":  # each token has a time of its own: 0 in the frames that are given
        x = torch.lerp(x, given.latents.to(x.dtype), image)
        grid = (times.view(-1, 1, 1, 1, 1) * (1 - image)).expand(-1, -1, -1, *x.shape[3:])
        times = grid[..., ::2, ::2].flatten(1)
    device, text = x.device.type, given.text.float()
    with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
        out: Tensor = expert(hidden_states=x, timestep=times, encoder_hidden_states=text, return_dict=False)[0]
    return out.float()


def flow_loss(variant: Variant, expert: nn.Module, span: tuple[float, float], given: Examples) -> Tensor:
    """Mean square error of the velocity at a sigma and noise drawn for each clip, the sigma from the span."""
    clean = given.latents.float()
    drawn = torch.rand(len(clean), device=clean.device)
    sigma = span[0] + (span[1] - span[0]) * SKEW * drawn / (1 + (SKEW - 1) * drawn)
    noise = torch.randn_like(clean)
    x = torch.lerp(clean, noise, sigma.view(-1, 1, 1, 1, 1))
    off = velocity(variant, expert, x, sigma, given) - (noise - clean)
    wanted = 1 - given.image.float() if variant.image == "optional" else 1.0
    return (off.square() * wanted).mean()


@torch.no_grad()
def guided(
    expert: nn.Module, family: Family, x: Tensor, sigma: float | Tensor, given: Examples, scale: float
) -> Tensor:
    """The velocity at one sigma for all clips, away from what the expert makes of no prompt."""
    at = torch.as_tensor(sigma, dtype=x.dtype, device=x.device).expand(len(x))
    prompted = velocity(family.variant, expert, x, at, given)
    if scale == 1.0:
        return prompted
    unprompted = given._replace(text=family.unprompted[:1].expand(len(x), -1, -1))
    return torch.lerp(velocity(family.variant, expert, x, at, unprompted), prompted, scale)


@torch.no_grad()
def follow(experts: Sequence[nn.Module], family: Family, x: Tensor, given: Examples, sigmas: Sequence[float]) -> Tensor:
    """Where x, at the first of the sigmas, comes to at the last by Euler's steps, each expert guided as usual."""
    variant = family.variant
    scales = [one for one in (variant.guidance_scale_high, variant.guidance_scale_low) if one is not None]
    for sigma, following in pairwise(sigmas):
        number = next(number for number, (low, _) in enumerate(family.spans) if sigma >= low)
        x = x + (following - sigma) * guided(experts[number], family, x, sigma, given, scales[number])
    return finished(variant, x, given)


def finished(variant: Variant, x: Tensor, given: Examples) -> Tensor:
    """With the latent frames that were given, where the variant takes them so."""
    return torch.lerp(x, given.latents.float(), given.image.float()) if variant.image == "optional" else x


def shifted(steps: int, shift: float) -> list[float]:
    """Sigmas from 1 to 0, denser at the noisy end."""
    even = [1 - step / steps for step in range(steps + 1)]
    return [shift * sigma / (1 + (shift - 1) * sigma) for sigma in even]


def train(run: Run, variant: str, number: int) -> None:
    """Into DIR/VARIANT: the expert of this number."""
    family = Family(run, variant)
    expert = family.expert(number)
    quick = run.quick(expert)

    def prompted(*columns: Tensor) -> Tensor:
        return flow_loss(family.variant, quick, family.spans[number], Examples(*columns))

    def unprompted(*columns: Tensor) -> Tensor:
        given = Examples(*columns)
        text = family.unprompted.repeat(len(given.text) // 2 + 1, 1, 1)[: len(given.text)]
        return flow_loss(family.variant, quick, family.spans[number], given._replace(text=text))

    def save(averages: Sequence[Any]) -> None:
        sizes = {name: value for name, value in expert.config.items() if name != "_name_or_path"}  # of who trained it
        store(WanTransformer3DModel.from_config(sizes), averages[0], family.folder / family.names[number])
        if family.there():
            stored = [family.expert(each) for each in range(len(family.names))]
            sigmas = shifted(family.variant.num_inference_steps, family.variant.flow_shift)
            say_right(family, lambda x, given: follow(stored, family, x, given, sigmas))

    pools = []
    for side, clips in SIDES:
        batch = run.batch(min(CLIPS, TOKENS // family.variant.tokens(side, side, FRAMES)))
        every = max(1, STEPS_A_NEW_CLIP * NEW // batch)
        pools.append(Pool(partial(family.examples, side), run.clips(clips), batch, new=NEW, every=every))
    run.say("clips are encoded")
    heard = [(pool, prompted) for pool in pools]
    matrices = [one for one in expert.blocks.parameters() if one.ndim == 2]
    run.fit([expert], [*heard * (PROMPTED // 2), *((pool, unprompted) for pool in pools)], save, matrices=matrices)


Make = Callable[[Tensor, Examples], Tensor]
"""Latents of noise and what is given."""


@torch.no_grad()
def say_right(family: Family, make: Make) -> None:
    """Says of how many new prompts the judge reads back right what is made of them."""
    run, judge = family.run, Judge.load(family.run.out / JUDGE.name).to(family.run.device)
    count = run.clips(128)
    for side in (64, 128):
        scenes = [random_scene(run.rng) for _ in range(count)]
        given = family.encoded(scenes, side, [plain_caption(scene) for scene in scenes])
        latents = make(torch.randn(given.latents.shape, device=run.device), given)
        right = judge.right(vae.decode(family.vae, latents), scenes)
        run.say(f"{sum(right)} of {count} prompts read right at {side}x{side}")
