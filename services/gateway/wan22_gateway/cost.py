"""What a generation costs, in seconds of worker time: a sum of four parts, whose weights each pool learns as it works.

Recursive least squares (Ljung, System Identification, 2nd edition, 11.2) over the parts' shares, in units of the pool's
own scale, so that the same terms serve an H100 and a laptop's CPU.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace

from wan22.parameters import Parameters
from wan22.variants import MAX_PROMPT_TOKENS, Variant

SECONDS_PER_PFLOP = 2.0
"""Before a pool has finished its first generation: one H100 at 0.5 PFLOP/s, diffusers' eager rate."""
DECODE_PFLOP_PER_MEGAPIXEL = 0.275 / (832 * 480 * 81 / 1e6)
"""VAE decode, counted at 832x480x81 for VAE 2.1."""
FIXED_SECONDS = 1.0
"""Texts, image and the MP4's end, before anything was measured."""
PARTS = 4
COMMON, FREEDOM = 1.0, 0.25
"""Variance of all weights together, and of each by itself, after the first generation: it may have been unusual."""
DRIFT = 0.02**2
"""Variance that a weight gains with each generation: what was learned long ago counts less."""
NOISE = 0.1
"""Relative standard deviation of equal work."""
OUTLIER = 3.0
"""Standard deviations beyond which a time counts as if it were at that bound."""
CHANGED = 3
"""Outliers in a row, all slower or all faster, that are none: the pool has become another."""
LEAST_WEIGHT = 0.01
FIRST_SPREAD, SPREAD_WEIGHT = 0.3, 0.3


@dataclass(frozen=True, slots=True)
class Work:
    """The parts of a generation's work, in seconds of a pool of which nothing is known."""

    linear: float
    """Products with weights, of all forwards."""
    attention: float
    """Quadratic in the number of tokens."""
    decode: float
    """VAE, by pixels."""
    fixed: float = FIXED_SECONDS

    @property
    def parts(self) -> tuple[float, float, float, float]:
        """All four."""
        return self.linear, self.attention, self.decode, self.fixed


def work(variant: Variant, parameters: Parameters) -> Work:
    """The work of one generation: the DiT's forwards (two a step with guidance), the VAE's decode, what is fixed."""
    tokens = variant.tokens(parameters.width, parameters.height, parameters.num_frames)
    dim, ffn = variant.dim, variant.ffn_dim
    linear = 2 * (tokens * (6 * dim * dim + 2 * dim * ffn) + MAX_PROMPT_TOKENS * 2 * dim * dim)
    attention = 4 * tokens * (tokens + MAX_PROMPT_TOKENS) * dim
    scales = [s for s in (parameters.guidance_scale_high, parameters.guidance_scale_low) if s is not None]
    forwards = parameters.num_inference_steps * (1 + sum(scale > 1.0 for scale in scales) / len(scales))
    a_flop = SECONDS_PER_PFLOP / 1e15 * variant.num_layers * forwards
    megapixels = parameters.width * parameters.height * parameters.num_frames / 1e6
    decode = SECONDS_PER_PFLOP * DECODE_PFLOP_PER_MEGAPIXEL * megapixels
    return Work(linear * a_flop, attention * a_flop, decode)


@dataclass(frozen=True, slots=True)
class CostModel:
    """A pool's speed, as far as it is known."""

    count: int = 0
    """Generations learned from."""
    scale: float = 1.0
    """Seconds to one of an unknown pool's, by the first generation."""
    weights: tuple[float, ...] = (1.0,) * PARTS
    """Of each part, in units of the scale."""
    covariance: tuple[tuple[float, ...], ...] = tuple(
        tuple(COMMON + (FREEDOM if row == column else 0.0) for column in range(PARTS)) for row in range(PARTS)
    )
    spread: float = 1.0
    """How far, relative to them, times lay from predictions of late."""
    outliers: int = 0
    """In a row: positive when slower, negative when faster."""

    @classmethod
    def from_json(cls, text: str | None) -> CostModel:
        """The stored model; one that knows nothing when there is none."""
        if text is None:
            return cls()
        stored = json.loads(text)
        covariance = tuple(tuple(row) for row in stored["covariance"])
        return cls(**{**stored, "weights": tuple(stored["weights"]), "covariance": covariance})

    def to_json(self) -> str:
        """What `from_json` takes."""
        return json.dumps(asdict(self))

    def seconds(self, of: Work) -> float:
        """Predicted seconds of worker time; always positive."""
        return self.scale * sum(weight * part for weight, part in zip(self.weights, of.parts, strict=True))

    def at_least(self, of: Work) -> float:
        """Seconds that it will hardly take less than; 0 while too little is known."""
        return self.seconds(of) * max(0.0, 1.0 - 2.0 * self.spread)

    def learned(self, of: Work, seconds: float) -> CostModel:
        """The model once a generation is known to have taken so long."""
        total = sum(of.parts)
        if self.count == 0:
            return CostModel(count=1, scale=seconds / total, spread=FIRST_SPREAD)
        shares = [part / total for part in of.parts]
        measured = seconds / total / self.scale
        predicted = sum(weight * share for weight, share in zip(self.weights, shares, strict=True))
        gain = [
            sum((value + (DRIFT if row == column else 0.0)) * shares[column] for column, value in enumerate(values))
            for row, values in enumerate(self.covariance)
        ]
        variance = sum(share * value for share, value in zip(shares, gain, strict=True)) + (NOISE * predicted) ** 2
        bound = OUTLIER * variance**0.5
        error = measured - predicted
        outliers = 0
        if abs(error) > bound:
            outliers = max(self.outliers, 0) + 1 if error > 0 else min(self.outliers, 0) - 1
        if abs(outliers) == CHANGED:
            anew = CostModel(weights=self.weights)
            scale = self.scale * measured / predicted
            return replace(anew, count=self.count + 1, scale=scale, spread=FIRST_SPREAD)
        error = max(-bound, min(bound, error))
        weights = tuple(
            max(LEAST_WEIGHT, weight + value * error / variance)
            for weight, value in zip(self.weights, gain, strict=True)
        )
        covariance = tuple(
            tuple(
                value + (DRIFT if row == column else 0.0) - gain[row] * gain[column] / variance
                for column, value in enumerate(values)
            )
            for row, values in enumerate(self.covariance)
        )
        off = min(1.0, abs(measured - predicted) / predicted)
        spread = (1 - SPREAD_WEIGHT) * self.spread + SPREAD_WEIGHT * off
        return CostModel(self.count + 1, self.scale, weights, covariance, spread, outliers)
