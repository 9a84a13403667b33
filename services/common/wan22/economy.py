"""What a generation does to need less memory. It changes the last bits of a video, so it is part of the recipe."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace


@dataclass(frozen=True, kw_only=True)
class Economy:
    """None of all this by default; a retry takes at least the steps that an earlier attempt needed."""

    encode_tile: int | None = None
    """Latents a side of a tile in which the VAE encodes images; None is the whole frame."""
    feed_forward_chunk: int | None = None
    """Tokens that a feed-forward takes at a time; None is all."""
    decode_tile: int | None = None
    """Latents a side of a tile in which the VAE decodes; None is the whole frame."""

    def entries(self) -> dict[str, int]:
        """The steps that are taken, by name."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    def with_at_least(self, other: Economy) -> Economy:
        """The tighter of the two in each."""
        mine, others = self.entries(), other.entries()
        return Economy(
            **{name: min(steps[name] for steps in (mine, others) if name in steps) for name in mine | others}
        )

    def tighter(self, field: str, steps: tuple[int, ...]) -> Economy | None:
        """The same with the next smaller step of a field; None past the last."""
        now = getattr(self, field)
        smaller = next((step for step in steps if now is None or step < now), None)
        return None if smaller is None else replace(self, **{field: smaller})


FEED_FORWARD_CHUNKS = (16_384, 4_096)
TILES = (32, 16, 8)
"""Latents a side; with the halo a tile of 8 reads about 32."""
EMPTY = Economy()
