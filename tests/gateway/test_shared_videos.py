"""Which video answers a request, and how long a shared one is there: rules over generated rows."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, select, update

from wan22_gateway import reuse
from wan22_gateway.results import recipe_key
from wan22_gateway.store import generations
from wan22_gateway.store.database import Database, Transaction
from wan22_gateway.store.schema import generations as table
from wan22_gateway.store.schema import objects as objects_table
from wan22_gateway.store.schema import workers

from . import rows
from .test_listing import NEW
from .test_retention import HOUR, make_video

SETTINGS = settings(max_examples=40)


@dataclass(frozen=True)
class Earlier:
    """A generation that was made before."""

    tenant: str
    inputs: str
    numerics: str
    state: str
    economy: bool
    expires_in: int | None
    gone: bool

    def answers(self, tenant: str, inputs: str, present: set[str]) -> bool:
        lasts = self.expires_in is None or self.expires_in > 0
        usable = self.state == "SUCCEEDED" and not self.economy and not self.gone and lasts
        known = self.numerics in present if present else self.numerics != ""
        return usable and known and (self.tenant, self.inputs) == (tenant, inputs)


EARLIER = st.builds(
    Earlier,
    tenant=st.sampled_from(["alice", "bob"]),
    inputs=st.sampled_from(["x", "y"]),
    numerics=st.sampled_from(["", "n1", "n2"]),
    state=st.sampled_from(["SUCCEEDED", "SUCCEEDED", "SUCCEEDED", "FAILED", "QUEUED"]),
    economy=st.booleans(),
    expires_in=st.sampled_from([None, None, HOUR, -HOUR]),
    gone=st.booleans(),
)


def fill(tx: Transaction, earlier: list[Earlier], present: set[str], lost: set[str]) -> list[str]:
    for each in (table, workers, objects_table):
        tx.execute(delete(each))
    rows.add_pool(tx)
    for numerics in present:
        rows.add_worker(tx, f"workers/{numerics}", numerics=numerics)
    for numerics in lost:
        rows.add_worker(tx, f"workers/lost-{numerics}", numerics=numerics, lease=-1.0)
    rows.add_worker(tx, "workers/loading", numerics="", state="LOADING")
    ids = []
    for made in earlier:
        generation = make_video(tx, tenant=made.tenant, expires_in=made.expires_in)
        values: dict[str, Any] = {"inputs_digest": made.inputs, "numerics_digest": made.numerics, "state": made.state}
        values |= {"economy": b"1"} if made.economy else {}
        values |= {"video_key": None} if made.gone else {}
        tx.execute(update(table).where(table.c.id == generation).values(**values))
        ids.append(generation)
    return ids


@SETTINGS
@given(
    st.lists(EARLIER, max_size=6),
    st.sampled_from(["alice", "bob"]),
    st.sampled_from(["x", "y"]),
    st.sets(st.sampled_from(["n1", "n2", "n3"])),
    st.sets(st.sampled_from(["n1", "n2"])),
)
async def test_the_newest_video_of_the_same_tenant_inputs_and_numerics_answers_and_no_other(
    database: Database, earlier: list[Earlier], tenant: str, inputs: str, present: set[str], lost: set[str]
) -> None:
    ids = await database.write(fill, earlier, present, lost)
    expected = [g for g, made in zip(ids, earlier, strict=True) if made.answers(tenant, inputs, present)]
    (found,) = await database.read(reuse.answers, [replace(NEW, tenant=tenant, inputs_digest=inputs)])
    assert (None if found is None else found.id) == (expected[-1] if expected else None)


STEPS = st.lists(
    st.tuples(st.sampled_from(["make", "reuse", "reuse", "expire", "delete", "housekeeping"]), st.integers(0, 99)),
    max_size=14,
)


def step(tx: Transaction, kind: str, number: int) -> None:
    """One thing that may happen, to one of the generations that there are."""
    there = tx.execute(select(table).order_by(table.c.position)).all()
    if kind == "make":
        make_video(tx)
        tx.execute(update(table).values(inputs_digest="x", numerics_digest="n1"))
    elif kind == "reuse":
        new = replace(NEW, id=str(uuid.uuid4()), inputs_digest="x", keep_for=HOUR if number % 2 else None)
        (made,) = reuse.answers(tx, [new])
        if made is not None:
            generations.insert_answered(tx, new, made)
    elif kind == "housekeeping":
        generations.expire_videos(tx)
    elif there:
        row = there[number % len(there)]
        if kind == "delete":
            generations.remove(tx, row)
        else:
            tx.execute(update(table).where(table.c.id == row.id).values(video_expire_time=tx.now - 1))


@SETTINGS
@given(STEPS)
async def test_a_videos_objects_are_there_exactly_as_long_as_a_generation_has_it(
    database: Database, steps: list[tuple[str, int]]
) -> None:
    await database.write(fill, [], set(), set())
    for kind, number in [*steps, ("housekeeping", 0)]:
        await database.write(step, kind, number)
        held = await database.read(lambda tx: set(tx.execute(select(table.c.video_key)).scalars()) - {None})
        live = await database.read(
            lambda tx: set(tx.execute(select(objects_table.c.key).where(objects_table.c.state == "live")).scalars())
        )
        assert live == held | {recipe_key(key) for key in held}
