"""What a test needs beside wan22: the cluster's own, or on this machine one that is installed for the test."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from wan22.errors import FailedPrecondition
from wan22_testing.cluster.kubectl import Kubectl
from wan22_testing.nodes.addon import Addon
from wan22_testing.nodes.cluster import NodeCluster


@contextmanager
def addon(
    wanted: Addon, own_cluster: NodeCluster | None, kubectl: Kubectl, folders: pytest.TempPathFactory
) -> Iterator[None]:
    """Is there as long as the block; skips where it can be neither found nor installed."""
    if wanted.is_there(kubectl):
        yield
        return
    if own_cluster is None:
        pytest.skip(f"the cluster of KUBECONFIG has no {wanted.name}")
    folder = folders.mktemp(wanted.name)
    try:
        wanted.install(own_cluster, kubectl, folder)
    except FailedPrecondition as error:
        pytest.skip(error.message)
    yield
    wanted.uninstall(kubectl, folder)
