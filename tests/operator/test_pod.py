from __future__ import annotations

from typing import Any

import pytest

from wan22_inference.settings import WorkerSettings
from wan22_operator.builders.children import children_of
from wan22_operator.builders.pod import Placement, pod_of
from wan22_operator.children import is_within

from .observing import SETTINGS, VERSION, pool_spec


def made(
    placement: Placement = Placement(),  # noqa: B008  # frozen
    worker_settings: dict[str, str] | None = None,
    **spec: Any,
) -> Any:
    given = {"worker_registry": "registry.wan22.svc:50052", "worker_settings": worker_settings or {}}
    settings = SETTINGS.model_copy(update=given)
    return pod_of(
        pool_spec(**spec),
        settings,
        name="t2v-3",
        image="worker:1",
        model_version=VERSION,
        revision="1-abc",
        placement=placement,
    )


def test_the_flags_of_the_container_are_flags_of_a_worker() -> None:
    pod = made(engine={"gpusPerWorker": 1, "vramLimit": "40Gi"}, drainSeconds=120)
    (container,) = pod["spec"]["containers"]
    arguments = [
        argument.replace("$(POD_UID)", "u-1").replace("$(POD_IP)", "10.0.0.1") for argument in container["args"]
    ]
    settings = WorkerSettings.load("worker", arguments)
    assert settings.name == "workers/videos.t2v-3"
    assert settings.uid == "u-1"
    assert settings.pool == "pools/videos.t2v"
    assert settings.model == VERSION
    assert settings.vram_limit == 40 << 30
    assert settings.drain_seconds == 120
    assert pod["spec"]["terminationGracePeriodSeconds"] > 120
    assert container["resources"] == {"requests": {"nvidia.com/gpu": 1}, "limits": {"nvidia.com/gpu": 1}}


def test_settings_of_all_workers_are_variables_which_a_pools_own_flags_go_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pod = made(drainSeconds=120, worker_settings={"drain_seconds": "5", "checkpoint_seconds": "10"})
    (container,) = pod["spec"]["containers"]
    for variable in container["env"]:
        if "value" in variable:
            monkeypatch.setenv(variable["name"], variable["value"])
    arguments = [argument.replace("$(POD_IP)", "10.0.0.1") for argument in container["args"]]
    settings = WorkerSettings.load("worker", arguments)
    assert (settings.drain_seconds, settings.checkpoint_seconds) == (120, 10)


def test_it_goes_with_its_pool_and_blocks_no_deletion() -> None:
    (owner,) = made()["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["uid"], owner["controller"]) == ("WanPool", "pool-uid", True)
    assert owner["blockOwnerDeletion"] is False
    assert "finalizers" not in made()["metadata"]


def test_nodes_to_be_on_and_to_avoid_are_added_to_each_term_of_the_users() -> None:
    terms = [{"matchExpressions": [{"key": "gpu", "operator": "Exists"}]}, {}]
    required = "requiredDuringSchedulingIgnoredDuringExecution"
    affinity = {"nodeAffinity": {required: {"nodeSelectorTerms": terms}}}
    pod = made(Placement(node="n1", claim="cache-n1"), scheduling={"affinity": affinity})
    found = pod["spec"]["affinity"]["nodeAffinity"][required]["nodeSelectorTerms"]
    fields = [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]
    assert found == [{**terms[0], "matchFields": fields}, {"matchFields": fields}]
    assert pod["spec"]["volumes"][0] == {"name": "cache", "persistentVolumeClaim": {"claimName": "cache-n1"}}


def test_a_pool_without_a_node_cache_gives_each_worker_a_claim_of_its_own() -> None:
    volume = made(cache={"storageClassName": "nvme", "size": "80Gi"})["spec"]["volumes"][0]
    spec = volume["ephemeral"]["volumeClaimTemplate"]["spec"]
    assert spec["storageClassName"] == "nvme"
    assert spec["resources"] == {"requests": {"storage": "80Gi"}}


@pytest.mark.parametrize(
    ("quantity", "size"), [("12Gi", 12 << 30), ("1.5G", 1_500_000_000), (1000, 1000), ("2Ti", 2 << 40)]
)
def test_quantities_are_bytes(quantity: Any, size: int) -> None:
    (container,) = made(engine={"gpusPerWorker": 1, "vramLimit": quantity})["spec"]["containers"]
    assert f"--vram-limit={size}" in container["args"]


def test_what_has_more_than_is_wanted_is_as_wanted_and_what_differs_is_not() -> None:
    for _, wanted in children_of(pool_spec(), SETTINGS):
        has = {
            **wanted,
            "metadata": {**wanted["metadata"], "uid": "u", "labels": {**wanted["metadata"]["labels"], "x": "y"}},
        }
        assert is_within(wanted, has)
    _, service = children_of(pool_spec(), SETTINGS)[1]
    changed = {**service, "spec": {**service["spec"], "publishNotReadyAddresses": False}}
    assert not is_within(service, changed)
