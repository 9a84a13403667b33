"""Whether a generation fits into the memory of a pool's workers, as far as these have said what they have."""

from __future__ import annotations

from dataclasses import dataclass, replace

from wan22.economy import EMPTY, Economy
from wan22.memory_messages import holdings_from_message
from wan22.memory_model import Holdings, economise, what_fits
from wan22.parameters import Parameters
from wan22.v1 import inference_pb2
from wan22.variants import Variant
from wan22_gateway.store import pools
from wan22_gateway.store.database import Transaction


@dataclass(frozen=True)
class Fit:
    """What the worker with the most memory would do."""

    fits: bool
    peak_bytes: int
    limit: int
    economy: Economy
    advice: str
    """Where it does not fit: what would, in words."""


def roomiest(tx: Transaction, pool: str) -> Holdings | None:
    """What the worker of a pool with the most memory holds; None while none has said so, or nothing bounds it."""
    known = [worker.memory for worker in pools.workers_of(tx, pool)]
    if not known or None in known:
        return None
    held = [holdings_from_message(inference_pb2.Worker.Memory.FromString(memory)) for memory in known]
    return max(held, key=lambda holdings: holdings.limit)


def fit(best: Holdings, variant: Variant, parameters: Parameters, adapter_bytes: int = 0) -> Fit:
    """How a generation would fit there, with LoRA adapters of so many bytes beside the weights."""
    best = replace(best, overhead=best.overhead + adapter_bytes)
    economy, prediction = economise(variant, parameters, best, EMPTY)
    advice = "" if prediction.fits else what_fits(variant, parameters, best)
    return Fit(prediction.fits, prediction.peak, best.limit, economy, advice)
