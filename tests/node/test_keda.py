"""The real KEDA scales a pool of mode External, by the gateway's external scaler and the scale subresource."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from wan22_testing.cluster.kubectl import Kubectl
from wan22_testing.nodes.addon import KEDA
from wan22_testing.nodes.cluster import NodeCluster

from .addons import addon
from .caller import Caller
from .release import TI2V, Release, until
from .test_worker_loss import LONG

pytestmark = [pytest.mark.node, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def with_keda(
    own_cluster: NodeCluster | None, kubectl: Kubectl, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    """The cluster's KEDA, if it has one; else one that is installed for these tests."""
    with addon(KEDA, own_cluster, kubectl, tmp_path_factory):
        yield


def test_keda_scales_a_pool_from_zero_and_back(release: Release, caller: Caller, pool: str, with_keda: None) -> None:
    release.apply(pool, TI2V, replicas=0, scaling={"mode": "External", "maxReplicas": 3})
    files = {"caCert": "ca.crt", "tlsClientCert": "tls.crt", "tlsClientKey": "tls.key"}
    secret = f"{release.name}-keda-tls"
    metadata = {"name": pool, "namespace": release.namespace}
    authentication = {"apiVersion": "keda.sh/v1alpha1", "kind": "TriggerAuthentication", "metadata": metadata}
    references = [{"parameter": parameter, "name": secret, "key": key} for parameter, key in files.items()]
    release.kubectl.apply({**authentication, "spec": {"secretTargetRef": references}})
    trigger = {
        "type": "external-push",
        "metadata": {
            "scalerAddress": f"{release.name}-gateway.{release.namespace}:50053",
            "pool": f"pools/{release.namespace}.{pool}",
            "objectiveSeconds": "20",
        },
        "authenticationRef": {"name": pool},
    }
    target = {"apiVersion": "wan22.dev/v1alpha1", "kind": "WanPool", "name": pool}
    spec = {
        "scaleTargetRef": target,
        "minReplicaCount": 0,
        "maxReplicaCount": 3,
        "pollingInterval": 5,
        "cooldownPeriod": 10,
        "triggers": [trigger],
    }
    scaled = {"apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "metadata": metadata}
    release.kubectl.apply({**scaled, "spec": spec})
    (first,) = caller.queue(1, f"{pool}-first", *LONG, variant=TI2V)
    caller.events(first)  # by which the gateway learns how long they take
    names = caller.queue(6, pool, *LONG, variant=TI2V)
    until(lambda: release.status(pool)["readyReplicas"], lambda ready: ready > 1)
    done = until(
        lambda: caller.generations(pool), lambda found: all(one["state"] == "SUCCEEDED" for one in found.values())
    )
    assert {name: done[name]["attempt_count"] for name in names} == dict.fromkeys(names, 1)
    until(lambda: release.workers(pool), lambda pods: not pods)
    for kind in ("scaledobject", "triggerauthentication"):
        release.kubectl("delete", kind, pool, *release.inside, "--timeout=580s")
