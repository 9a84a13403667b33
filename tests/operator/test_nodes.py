from __future__ import annotations

import random

import pytest

from wan22_operator import nodes
from wan22_operator.nodes import Nodes
from wan22_operator.resources import NODE
from wan22_testing.operator_world.faults import Faults
from wan22_testing.operator_world.memory_cluster import MemoryCluster


async def nothing(_rounds: int) -> None:
    """There is nobody else."""


def cluster_with(*names: str) -> MemoryCluster:
    cluster = MemoryCluster(lambda: 0.0, lambda _: None)
    cluster.faults = Faults(random.Random(1), 0.0, pass_time=lambda _: None, rival=nothing)
    for name in names:
        put(cluster, name)
    return cluster


def put(cluster: MemoryCluster, name: str) -> None:
    ready = {"type": "Ready", "status": "True"}
    cluster.put_new(NODE, {"metadata": {"name": name}, "spec": {}, "status": {"conditions": [ready]}})


async def test_all_pools_share_a_list_until_it_is_old_or_forgotten() -> None:
    cluster = cluster_with("old")
    listed = Nodes(cluster)
    assert set(await listed.all()) == {"old"}
    put(cluster, "new")
    assert set(await listed.all({"old"})) == {"old"}
    listed.forget()
    assert set(await listed.all()) == {"old", "new"}


async def test_a_node_that_has_just_come_is_not_taken_for_one_that_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nodes, "AGAIN_SECONDS", 0.0)
    cluster = cluster_with("old")
    listed = Nodes(cluster)
    assert set(await listed.all()) == {"old"}
    put(cluster, "new")
    found = await listed.all({"old", "new"})
    assert found["new"].ready
