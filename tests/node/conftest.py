from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from wan22.errors import FailedPrecondition
from wan22_testing.cluster.kubectl import Kubectl
from wan22_testing.cluster.programs import Programs
from wan22_testing.nodes.cluster import NodeCluster
from wan22_testing.nodes.layout import Layout

SECONDS = 300.0
"""For one call of kubectl, which may wait for what a busy machine is to do."""


@pytest.fixture(scope="session")
def own_cluster() -> Iterator[NodeCluster | None]:
    """That of this machine: the running one of `make cluster-up` if KUBECONFIG names it, else one for these tests."""
    cluster = NodeCluster(Layout.usual())
    named = os.environ.get("KUBECONFIG")
    if named:
        yield cluster if Path(named) == cluster.layout.kubeconfig else None
        return
    try:
        cluster.up()
    except FailedPrecondition as error:
        pytest.skip(error.message)
    except BaseException:
        cluster.down()
        raise
    yield cluster
    cluster.down()


@pytest.fixture(scope="session")
def kubectl(own_cluster: NodeCluster | None) -> Kubectl:
    """An administrator's."""
    kubeconfig = own_cluster.layout.kubeconfig if own_cluster else Path(os.environ["KUBECONFIG"])
    return Kubectl(Programs.find().path("kubectl"), kubeconfig, seconds=SECONDS)


@pytest.fixture(scope="session")
def nodes(own_cluster: NodeCluster | None) -> NodeCluster:
    """For what only an own cluster stands: crashes of nodes, loading of images."""
    if own_cluster is None:
        pytest.skip("the nodes of the cluster that KUBECONFIG names are not this machine's to crash")
    return own_cluster
