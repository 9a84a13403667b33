"""What a desktop card would take for a generation: an estimate by published peak rates, and called so."""

from __future__ import annotations

from dataclasses import dataclass

from wan22_bench.report import Figures

CARD = "RTX 4080"
CARD_RATE, RATE = 194.9e12, 1978.9e12
"""Dense float8 products with float32 sums, FLOP/s: NVIDIA's Ada GPU Architecture whitepaper, appendix A, for a GeForce
RTX 4080 of 16 GB; its H100 data sheet (SXM, without sparsity), whose rates an H200 has too. In bfloat16, 97.5 to 989.4
TFLOP/s, the ratio is the same; of memory, 717 GB/s to 3.35 TB/s, it is half, so that the estimate is a high one."""
TURBO_FORWARDS = 4
QUALITY_FORWARDS = 80
"""40 steps with guidance."""
COLUMNS = (
    "work",
    "limit, GB",
    f"asked of an {CARD}, s",
    "a forward here, s",
    f"a forward on an {CARD}, s, estimated",
    f"TURBO there, {TURBO_FORWARDS} forwards, s, estimated",
    f"QUALITY there, {QUALITY_FORWARDS} forwards, s, estimated",
)


@dataclass(frozen=True)
class Timed:
    """A generation under a limit of memory."""

    work: str
    gigabytes: float
    asked: float | None
    """Seconds that such a card was said to take, for a number of steps that was not said; None where none was."""
    forward: float
    """Seconds of one forward here, under the limit."""


def figures(timed: list[Timed]) -> Figures:
    """The table, of denoising alone."""
    rows: list[list[str | float]] = []
    for each in timed:
        there = each.forward * RATE / CARD_RATE
        asked = "" if each.asked is None else f"{each.asked:g}"
        whole = (there * TURBO_FORWARDS, there * QUALITY_FORWARDS)
        rows.append([each.work, each.gigabytes, asked, each.forward, there, *whole])
    title = (
        f"Denoising under a limit of memory, and what an {CARD} would take by the ratio of the cards' peak rates, "
        f"{CARD_RATE / 1e12:.4g} and {RATE / 1e12:.4g} TFLOP/s: an estimate, nothing was run on one"
    )
    return Figures(title=title, columns=COLUMNS, rows=rows)
