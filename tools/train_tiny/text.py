"""The text encoder: a small UMT5 that learns what captions say before any DiT reads it, as WAN2.2's had been before."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from tools.train_tiny.run import Run, store
from torch import Tensor, nn
from transformers import UMT5EncoderModel

from wan22.variants import MAX_PROMPT_TOKENS, NEGATIVE_PROMPT
from wan22_testing import tiny_tokenizer
from wan22_testing.shapes.captions import caption
from wan22_testing.shapes.judge import Reading
from wan22_testing.shapes.world import BACKGROUNDS, COLOURS, MAX_OBJECTS, MOTIONS, SHAPES, random_scene
from wan22_testing.tiny_models import new_text_encoder

FOLDER = "text_encoder"
DIM = 64
LONGEST = 48
"""Tokens of a caption, at most."""


class Text:
    """Captions to embeddings, padded with zeros to 512 tokens as WAN2.2 has them."""

    def __init__(self, run: Run) -> None:
        self._tokenizer = tiny_tokenizer.build()
        self._device = run.device
        folder = run.out / FOLDER
        found = UMT5EncoderModel.from_pretrained(folder) if folder.exists() else self._new()
        self.encoder = found.float().to(run.device)

    def _new(self) -> UMT5EncoderModel:
        vocabulary = self._tokenizer.get_vocab_size()
        return new_text_encoder(vocabulary, d_model=DIM, d_kv=16, d_ff=128, dropout_rate=0.0)

    def embed(self, captions: Sequence[str]) -> Tensor:
        """(captions, longest caption, DIM), zero where there is nothing."""
        rows = [self._tokenizer.encode(one).ids for one in captions]
        width = max(LONGEST, *map(len, rows))
        tokens = torch.tensor([[*row, *[0] * (width - len(row))] for row in rows], device=self._device)
        there = (tokens != 0).long()
        embedded: Tensor = self.encoder(input_ids=tokens, attention_mask=there).last_hidden_state
        return embedded * there[..., None]

    @torch.no_grad()
    def unprompted(self) -> Tensor:
        """(2, 512, DIM): no prompt at all, and the official negative prompt."""
        return padded(self.embed(["", NEGATIVE_PROMPT]))


def padded(embedded: Tensor) -> Tensor:
    """As the DiT reads it: (captions, 512, DIM)."""
    return nn.functional.pad(embedded, (0, 0, 0, MAX_PROMPT_TOKENS - embedded.shape[1]))


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

    def ask(count: int) -> tuple[Tensor, float]:
        """The loss of new captions, and the share whose groups are read right."""
        scenes = [random_scene(run.rng) for _ in range(count)]
        captions = [caption(scene, run.rng) for scene in scenes]
        reading, background = reader(text.embed(captions))
        names = list(BACKGROUNDS)
        said = [
            names.index(s.background) if s.background in c else len(names)
            for s, c in zip(scenes, captions, strict=True)
        ]
        right = [read == frozenset(s.groups) for read, s in zip(reading.groups(), scenes, strict=True)]
        there = torch.tensor(said, device=run.device)
        return reading.loss(scenes) + nn.functional.cross_entropy(background, there), sum(right) / count

    def save(averages: Sequence[nn.Module]) -> None:
        store(UMT5EncoderModel(text.encoder.config), averages[0], run.out / FOLDER)
        with torch.no_grad():
            run.say(f"{ask(1000)[1]:.2%} of 1000 new captions understood")

    run.fit([text.encoder, reader], lambda: ask(run.batch(128))[0], save)
