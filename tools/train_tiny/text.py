"""The text encoder: a small UMT5 that learns what captions say before any DiT reads it, as WAN2.2's had been before."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from diffusers.models.transformers.transformer_wan import WanAttnProcessor
from tools.train_tiny.run import Pool, Run, store
from torch import Tensor, nn
from transformers import UMT5Config, UMT5EncoderModel

from wan22.variants import MAX_PROMPT_TOKENS, NEGATIVE_PROMPT
from wan22_testing import tiny_tokenizer
from wan22_testing.shapes.captions import caption
from wan22_testing.shapes.judge import Reading, truth
from wan22_testing.shapes.world import BACKGROUNDS, COLOURS, MAX_OBJECTS, MOTIONS, SHAPES, random_scene
from wan22_testing.tiny_models import text_encoder_config

FOLDER = "text_encoder"
DIM = 64
LONGEST = 28
"""Tokens of a caption, at most."""
SPARE = 4
"""Tokens that stand for the emptiness after a caption, up to 512."""


class Text:
    """Captions to embeddings, padded with zeros to 512 tokens as WAN2.2 has them."""

    def __init__(self, run: Run) -> None:
        self._tokenizer = tiny_tokenizer.build()
        self._device = run.device
        folder = run.out / FOLDER
        config = UMT5Config.from_dict(text_encoder_config(d_model=DIM, d_kv=16, d_ff=128, dropout_rate=0.0))
        found = UMT5EncoderModel.from_pretrained(folder) if folder.exists() else UMT5EncoderModel(config)
        self.encoder = found.float().to(run.device)

    def tokens(self, captions: Sequence[str], width: int = LONGEST) -> Tensor:
        """(captions, width), zero where there is nothing."""
        rows = [self._tokenizer.encode(one).ids for one in captions]
        return torch.tensor([[*row, *[0] * (width - len(row))] for row in rows], device=self._device)

    def embed(self, tokens: Tensor) -> Tensor:
        """(captions, width, DIM), zero where there is nothing."""
        there = (tokens != 0).long()
        embedded: Tensor = self.encoder(input_ids=tokens, attention_mask=there).last_hidden_state
        return embedded * there[..., None]

    @torch.no_grad()
    def unprompted(self) -> Tensor:
        """(2, 512, DIM): no prompt at all, and the official negative prompt."""
        return self.embed(self.tokens(["", NEGATIVE_PROMPT], MAX_PROMPT_TOKENS))


def folded(embedded: Tensor) -> Tensor:
    """Captions as `FoldedText` reads them: (captions, LONGEST + SPARE, DIM)."""
    return nn.functional.pad(embedded, (0, 0, 0, SPARE))


class FoldedText(WanAttnProcessor):  # type: ignore[misc]  # diffusers has no types
    """WAN2.2's attention to all 512 tokens of a prompt, of which most are empty: here a few, that weigh more."""

    def __call__(
        self, attn: Any, hidden_states: Tensor, encoder_hidden_states: Tensor | None = None, *rest: Any, **named: Any
    ) -> Tensor:
        """Weighs a prompt that `folded` has made; all else as it is."""
        if encoder_hidden_states is None or encoder_hidden_states.shape[1] != LONGEST + SPARE:
            return super().__call__(attn, hidden_states, encoder_hidden_states, *rest, **named)  # type: ignore[no-any-return]
        spare = torch.arange(LONGEST + SPARE, device=hidden_states.device) >= LONGEST
        weight = (spare * math.log((MAX_PROMPT_TOKENS - LONGEST) / SPARE)).to(hidden_states.dtype).view(1, 1, 1, -1)
        return super().__call__(attn, hidden_states, encoder_hidden_states, weight)  # type: ignore[no-any-return]


class Reader(nn.Module):
    """Asks of each colour, and of the background, what a caption says: what the encoder is trained by, and no more."""

    def __init__(self) -> None:
        super().__init__()
        self.questions = nn.Parameter(torch.randn(len(COLOURS) + 1, DIM))
        self.attention = nn.MultiheadAttention(DIM, 4, batch_first=True)
        self.number = nn.Linear(DIM, MAX_OBJECTS + 1)
        self.shape = nn.Linear(DIM, len(SHAPES))
        self.motion = nn.Linear(DIM, len(MOTIONS))
        self.background = nn.Linear(DIM, len(BACKGROUNDS) + 1)

    def forward(self, embedded: Tensor) -> tuple[Reading, Tensor]:
        """Of embeddings (captions, tokens, DIM)."""
        questions = self.questions.expand(len(embedded), -1, -1)
        answers = self.attention(questions, embedded, embedded, need_weights=False)[0]
        colours = answers[:, :-1]
        reading = Reading(self.number(colours), self.shape(colours), self.motion(colours))
        return reading, self.background(answers[:, -1])


def train(run: Run) -> None:
    """Into DIR/text_encoder."""
    text, reader = Text(run), Reader().to(run.device)
    names = list(BACKGROUNDS)

    def rows(count: int) -> tuple[Tensor, ...]:
        scenes = [random_scene(run.rng) for _ in range(count)]
        captions = [caption(scene, run.rng) for scene in scenes]
        pairs = zip(scenes, captions, strict=True)
        said = [names.index(scene.background) if scene.background in words else len(names) for scene, words in pairs]
        return text.tokens(captions), truth(scenes, run.device), torch.tensor(said, device=run.device)

    def loss(tokens: Tensor, wanted: Tensor, said: Tensor) -> Tensor:
        reading, background = reader(text.embed(tokens))
        lost: Tensor = reading.loss(wanted) + nn.functional.cross_entropy(background, said)
        return lost

    def save(averages: Sequence[nn.Module]) -> None:
        store(UMT5EncoderModel(text.encoder.config), averages[0], run.out / FOLDER)
        scenes = [random_scene(run.rng) for _ in range(1000)]
        stored = Text(run)
        with torch.no_grad():
            reading, _ = averages[1](stored.embed(stored.tokens([caption(scene, run.rng) for scene in scenes])))
        right = [read == frozenset(scene.groups) for read, scene in zip(reading.groups(), scenes, strict=True)]
        run.say(f"{sum(right)} of 1000 new captions understood")

    pool = Pool(rows, run.clips(4096), run.batch(128), every=2)
    run.fit([text.encoder, reader], [(pool, loss)], save, graphs=False)
