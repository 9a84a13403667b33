"""Whether a generation fits into what a pool's workers have said of their memory."""

from __future__ import annotations

from dataclasses import replace

from wan22.memory_messages import memory_message
from wan22.memory_model import Holdings
from wan22.parameters import Parameters, RequestedParameters, resolve
from wan22.v1 import inference_pb2
from wan22.variants import VARIANTS
from wan22_gateway.memory import fit, roomiest
from wan22_gateway.store import pools
from wan22_gateway.store.database import Database, Transaction

from .rows import ADDRESS, POOL, VERSION, add_pool

T2V = VARIANTS["t2v-a14b"]
GIB = 1 << 30
A14B = Holdings(
    limit=80 * GIB,
    overhead=GIB // 2,
    text_encoder=11 * GIB,
    text_encoder_stays=True,
    expert=GIB // 2,
    block=GIB * 7 // 10,
    streamed=False,
    vae=GIB // 2,
)


def parameters(frames: int = 81) -> Parameters:
    requested = RequestedParameters(prompt="a cat", width=832, height=480, num_frames=frames)
    return resolve(T2V, requested, image_size=None, draw_seed=lambda: 0)


def hear(tx: Transaction, name: str, *, limit: int | None) -> None:
    """From a worker that says how much memory it may use, or nothing of memory."""
    worker = inference_pb2.Worker(
        name=name, uid=name, pool=POOL, model_version=VERSION, state=inference_pb2.Worker.IDLE
    )
    if limit is not None:
        worker.memory.CopyFrom(memory_message(A14B))
        worker.memory.limit = limit
    pools.heard_from(tx, worker, ADDRESS, 60.0)


async def test_nothing_is_said_until_every_worker_has(database: Database) -> None:
    await database.write(add_pool)
    assert await database.read(roomiest, POOL) is None
    await database.write(hear, "workers/a", limit=80 * GIB)
    assert await database.read(roomiest, POOL) == A14B
    await database.write(hear, "workers/b", limit=None)
    assert await database.read(roomiest, POOL) is None


async def test_the_worker_with_the_most_memory_counts(database: Database) -> None:
    await database.write(add_pool)
    for name, limit in (("workers/small", 24), ("workers/large", 80), ("workers/middle", 40)):
        await database.write(hear, name, limit=limit * GIB)
    assert await database.read(roomiest, POOL) == A14B


def test_what_would_fit_is_said_where_something_does_not() -> None:
    small, large = fit(replace(A14B, limit=24 * GIB), T2V, parameters()), fit(A14B, T2V, parameters())
    assert not small.fits
    assert small.peak_bytes > small.limit == 24 * GIB
    assert small.advice == "at this size not even one frame fits: ask for a smaller one"
    assert (large.fits, large.limit, large.advice) == (True, 80 * GIB, "")


def test_adapters_take_their_room() -> None:
    without, beside = fit(A14B, T2V, parameters()), fit(A14B, T2V, parameters(), 2 * GIB)
    assert beside.peak_bytes == without.peak_bytes + 2 * GIB
