"""What a memory of pods that may be late says of a pool."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from wan22_operator.cluster import Object
from wan22_operator.names import PoolKey
from wan22_operator.pods import Pods, kept
from wan22_operator.record import WorkerRecord
from wan22_operator.resources import POD
from wan22_testing.operator_world.faults import Faults
from wan22_testing.operator_world.memory_cluster import MemoryCluster

from .observing import KEY

OWNER = "pool-uid"
OTHER = PoolKey(KEY.namespace, "other")


async def nothing(_rounds: int) -> None:
    """There is nobody else."""


@pytest.fixture
def cluster() -> MemoryCluster:
    made = MemoryCluster(lambda: 0.0, lambda _: None)
    made.faults = Faults(random.Random(1), 0.0, pass_time=lambda _: None, rival=nothing)
    return made


def put(cluster: MemoryCluster, name: str, key: PoolKey = KEY, owner: str = OWNER, **fields: Any) -> Object:
    meta = {
        "name": name,
        "namespace": key.namespace,
        "labels": key.labels(),
        "ownerReferences": [{"uid": owner, "controller": True}],
        "managedFields": [{"manager": "wan22-operator"}],
    }
    spec = {"containers": [{"name": "worker", "args": ["--model=m"], "env": [{"name": "A"}]}], "volumes": []}
    return cluster.put_new(POD, {"metadata": meta, "spec": spec, "status": {}, **fields})


async def followed(cluster: MemoryCluster, news: Callable[[PoolKey], None] = lambda _: None) -> Pods:
    pods = Pods(cluster, (), news)
    await pods.reflectors[None].step()
    return pods


async def names(pods: Pods, *records: WorkerRecord) -> dict[str, str]:
    return {one["metadata"]["name"]: one["metadata"]["uid"] for one in await pods.of(KEY, OWNER, records)}


async def test_a_pools_pods_are_those_that_it_owns(cluster: MemoryCluster) -> None:
    mine, _, _ = put(cluster, "t2v-0"), put(cluster, "t2v-1", owner="another"), put(cluster, "other-0", OTHER)
    pods = await followed(cluster)
    assert await names(pods) == {"t2v-0": mine["metadata"]["uid"]}
    assert {one["metadata"]["name"] for one in await pods.all(KEY.namespace)} == {"t2v-0", "t2v-1", "other-0"}
    assert await pods.all("elsewhere") == []


async def test_a_recorded_worker_that_is_not_in_memory_yet_is_looked_up(cluster: MemoryCluster) -> None:
    pods = await followed(cluster)
    late, _ = put(cluster, "t2v-0"), put(cluster, "t2v-1", owner="another")
    assert await names(pods) == {}
    found = await names(pods, WorkerRecord(name="t2v-0"), WorkerRecord(name="t2v-1"), WorkerRecord(name="t2v-2"))
    assert found == {"t2v-0": late["metadata"]["uid"]}


async def test_a_pod_of_another_uid_than_the_recorded_one_is_looked_up(cluster: MemoryCluster) -> None:
    old = put(cluster, "t2v-0")
    pods = await followed(cluster)
    cluster.drop(old)
    new = put(cluster, "t2v-0")
    assert await names(pods, WorkerRecord(name="t2v-0", uid=old["metadata"]["uid"])) == {
        "t2v-0": old["metadata"]["uid"]  # late, and harmless: whatever is done to it names its uid
    }
    assert await names(pods, WorkerRecord(name="t2v-0", uid=new["metadata"]["uid"])) == {
        "t2v-0": new["metadata"]["uid"]
    }
    await pods.reflectors[None].step()
    cluster.drop(new)
    assert await names(pods, WorkerRecord(name="t2v-0", uid="gone")) == {}


async def test_a_pod_that_no_record_has_is_taken_in_only_if_it_is_there_still(cluster: MemoryCluster) -> None:
    gone, there = put(cluster, "t2v-0"), put(cluster, "t2v-1")
    pods = await followed(cluster)
    cluster.drop(gone)
    assert await names(pods) == {"t2v-1": there["metadata"]["uid"]}
    assert await names(pods, WorkerRecord(name="t2v-0")) == {"t2v-1": there["metadata"]["uid"]}


async def test_a_pod_that_lost_its_pools_label_is_no_worker_of_it(cluster: MemoryCluster) -> None:
    pods = await followed(cluster)
    put(cluster, "t2v-0")
    one = next(cluster.all(POD))
    one["metadata"]["labels"] = OTHER.labels()
    assert await names(pods, WorkerRecord(name="t2v-0")) == {}


async def test_a_pool_hears_of_what_matters_alone(cluster: MemoryCluster) -> None:
    heard: list[PoolKey] = []
    put(cluster, "t2v-0")
    pods = await followed(cluster, heard.append)
    assert heard == [KEY]
    one = next(cluster.all(POD))
    one["status"]["conditions"] = [{"type": "ContainersReady", "status": "True"}]
    version = cluster.changed(one)["metadata"]["resourceVersion"]
    await pods.reflectors[None].step()
    assert heard == [KEY]
    assert [found["metadata"]["resourceVersion"] for found in await pods.of(KEY, OWNER, ())] == [version]
    one["status"]["phase"] = "Failed"
    cluster.changed(one)
    await pods.reflectors[None].step()
    assert heard == [KEY, KEY]
    one["metadata"]["labels"] = OTHER.labels()
    cluster.changed(one)
    await pods.reflectors[None].step()
    assert heard[2:] in ([KEY, OTHER], [OTHER, KEY])
    assert await names(pods) == {}
    cluster.drop(one)
    await pods.reflectors[None].step()
    assert heard[4:] == [OTHER]
    assert await pods.all(KEY.namespace) == []


async def test_a_pod_under_the_name_of_one_that_is_gone_unheard_takes_its_place(cluster: MemoryCluster) -> None:
    old = put(cluster, "t2v-0")
    pods = await followed(cluster)
    changed = pods._changed  # as after a gap: a list tells of what there is before it tells of what is gone
    new = {**old, "metadata": {**old["metadata"], "uid": "new"}}
    before = (await pods.all(KEY.namespace))[0]
    changed(None, new)
    assert await pods.all(KEY.namespace) == [new]
    changed(new, None)
    changed(before, None)
    assert await pods.all(KEY.namespace) == []


async def test_of_a_pod_only_what_is_looked_at_is_kept(cluster: MemoryCluster) -> None:
    made = put(cluster, "t2v-0")
    made["status"] = {
        "phase": "Running",
        "podIP": "10.0.0.1",
        "hostIP": "10.0.0.2",
        "conditions": [{"type": "Ready", "status": "True"}, {"type": "PodScheduled", "status": "True"}],
        "containerStatuses": [{"name": "worker", "restartCount": 2, "state": {"running": {}}, "imageID": "sha256:1"}],
    }
    del made["metadata"]["managedFields"]
    assert kept(made) == {
        "metadata": made["metadata"],
        "spec": {"containers": [{"args": ["--model=m"]}]},
        "status": {
            "phase": "Running",
            "podIP": "10.0.0.1",
            "conditions": [{"type": "PodScheduled", "status": "True"}],
            "containerStatuses": [{"restartCount": 2, "state": {"running": {}}}],
        },
    }
    assert kept(kept(made)) == kept(made)
