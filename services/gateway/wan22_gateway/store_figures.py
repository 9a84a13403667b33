"""What the store holds, as gauges: equal on all replicas, so that a query takes their maximum, not their sum."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from sqlalchemy import func, select

from wan22_gateway.lifecycle import UNFINISHED
from wan22_gateway.store.database import Transaction
from wan22_gateway.store.schema import generations, pools, workers


@dataclass(frozen=True, eq=False)
class StoreFigures(Collector):
    """One reading."""

    generations: Sequence[tuple[str, str, str, int]]
    """Variant, pool and state of unfinished generations, and how many."""
    oldest: Sequence[tuple[str, float]]
    """By pool, seconds since the oldest QUEUED generation was accepted."""
    workers: Sequence[tuple[str, str, int]]
    """Pool and state of workers, and how many; SILENT is one whose lease has lapsed."""

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Called by a scrape."""
        unfinished = GaugeMetricFamily(
            "wan22_gateway_generations", "Unfinished generations by state.", labels=["variant", "pool", "state"]
        )
        for variant, pool, state, count in self.generations:
            unfinished.add_metric([variant, pool, state], count)
        oldest = GaugeMetricFamily(
            "wan22_gateway_oldest_queued_seconds", "Age of a pool's oldest queued generation.", labels=["pool"]
        )
        for pool, seconds in self.oldest:
            oldest.add_metric([pool], seconds)
        by_state = GaugeMetricFamily("wan22_gateway_workers", "Workers by state.", labels=["pool", "state"])
        for pool, state, count in self.workers:
            by_state.add_metric([pool, state], count)
        yield from (unfinished, oldest, by_state)


def read(tx: Transaction) -> StoreFigures:
    """Counts what there is; a pool without any has zeros."""
    known = tx.execute(select(pools.c.name, pools.c.variant)).all()
    counted = {(row.variant, row.name, str(state)): 0 for row in known for state in sorted(UNFINISHED)}
    columns = (generations.c.variant, generations.c.pool, generations.c.state)
    query = select(*columns, func.count().label("number")).where(generations.c.state.in_(sorted(UNFINISHED)))
    for row in tx.execute(query.group_by(*columns)):
        counted[row.variant, row.pool, row.state] = row.number
    ages = select(generations.c.pool, func.min(generations.c.create_time).label("first"))
    waiting = ages.where(generations.c.state == "QUEUED").group_by(generations.c.pool)
    first = {row.pool: (tx.now - row.first) / 1_000_000 for row in tx.execute(waiting)}
    states = Counter(
        (row.pool, row.state if row.lease_expire_time > tx.now else "SILENT")
        for row in tx.execute(select(workers.c.pool, workers.c.state, workers.c.lease_expire_time))
    )
    return StoreFigures(
        [(*labels, number) for labels, number in counted.items()],
        [(row.name, first.get(row.name, 0.0)) for row in known],
        [(pool, state, number) for (pool, state), number in states.items()],
    )
