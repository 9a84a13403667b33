"""Rows that the gateway's tests start from."""

from __future__ import annotations

import uuid

from sqlalchemy import insert

from wan22.v1 import inference_pb2, pool_pb2
from wan22_gateway.store import generations, pools
from wan22_gateway.store.database import Transaction
from wan22_gateway.store.generations import NewGeneration
from wan22_gateway.store.schema import tenants

POOL = "pools/test.t2v"
ADDRESS = "127.0.0.1:1"
VERSION = "models/tiny/versions/sha256:" + "0" * 64


def add_pool(
    tx: Transaction,
    name: str = POOL,
    max_workers: int = 4,
    version: str = VERSION,
    earlier: tuple[str, ...] = (),
    obstacle: str = "",
) -> None:
    pool = pool_pb2.Pool(
        name=name,
        variant="t2v-a14b-tiny",
        model_version=version,
        max_workers=max_workers,
        default_for_variant=True,
        earlier_versions=earlier,
        obstacle=obstacle,
    )
    pools.apply(tx, pool)


def served_pool(target: str, variant: str) -> pool_pb2.Pool:
    """The pool of a gateway in front of one worker."""
    return pool_pb2.Pool(
        name=POOL,
        variant=variant,
        model_version=VERSION,
        max_workers=1,
        default_for_variant=True,
        worker_targets=[target],
    )


def add_worker(
    tx: Transaction,
    name: str = "workers/w1",
    *,
    incarnation: str = "i1",
    state: str = "IDLE",
    lease: float = 60.0,
    numerics: str = "n1",
    version: str = VERSION,
) -> None:
    worker = inference_pb2.Worker(
        name=name,
        uid=f"uid-{name}",
        incarnation=incarnation,
        pool=POOL,
        model_version=version,
        state=inference_pb2.Worker.State.Value(state),
        numerics_digest=numerics,
    )
    pools.heard_from(tx, worker, ADDRESS, lease)


def add_generation(
    tx: Transaction,
    *,
    request_id: str = "",
    tenant: str = "default",
    predicted: float = 10.0,
    priority: int = 2,
    deadline: int | None = None,
    start_by_time: int | None = None,
    media: tuple[str, ...] = (),
    version: str = VERSION,
    preview_interval: int | None = None,
) -> str:
    generation = str(uuid.uuid4())
    new = NewGeneration(
        id=generation,
        tenant=tenant,
        request_id=request_id,
        request_digest="d",
        variant="t2v-a14b-tiny",
        pool=POOL,
        model_version=version,
        parameters=b"",
        labels={},
        cut_texts={},
        siblings=[],
        predicted_seconds=predicted,
        priority=priority,
        deadline=deadline,
        start_by_time=start_by_time,
        media=media,
        preview_interval=preview_interval,
    )
    generations.insert(tx, [new])
    return generation


def set_limits(tx: Transaction, name: str, **limits: float) -> None:
    tx.execute(insert(tenants).values(name=name, create_time=tx.now, **{"weight": 1.0, **limits}))
