"""Variants as messages: their defaults and limits."""

from __future__ import annotations

from wan22.v1 import generation_pb2
from wan22.variants import NEGATIVE_PROMPT, VARIANTS
from wan22_gateway.generation_messages import is_drained
from wan22_gateway.store import pools
from wan22_gateway.store.database import Transaction
from wan22_gateway.store.pools import PoolRow


def variant_message(tx: Transaction, pool: PoolRow) -> generation_pb2.Variant:
    """The variant that a pool serves by default."""
    variant = VARIANTS[pool.variant]
    ready = [
        worker
        for worker in pools.workers_of(tx, pool.name)
        if worker.state in {"IDLE", "BUSY"} and worker.lease_expire_time > tx.now and not is_drained(tx, worker)
    ]
    defaults = generation_pb2.Parameters(
        negative_prompt=NEGATIVE_PROMPT,
        width=variant.width,
        height=variant.height,
        num_frames=variant.num_frames,
        fps=variant.fps,
        num_inference_steps=variant.num_inference_steps,
        guidance_scale_high=variant.guidance_scale_high,
        guidance_scale_low=variant.guidance_scale_low,
        flow_shift=variant.flow_shift,
        boundary=variant.boundary,
        solver=generation_pb2.Parameters.Solver.Value(variant.solver),
    )
    return generation_pb2.Variant(
        name=variant.name,
        pool=pool.name,
        model_version=pool.model_version,
        defaults=defaults,
        size_multiple=variant.size_multiple,
        max_frames=variant.max_frames,
        ready_workers=len(ready),
    )
