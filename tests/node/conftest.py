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
from wan22_testing.nodes.volumes import recycle

from .caller import Caller
from .images import BUILT, SERVICES, Images, archives_in
from .release import SECONDS, T2V, TI2V, Release


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


@pytest.fixture(scope="session")
def images(own_cluster: NodeCluster | None) -> Images:
    """Those that WAN22_TEST_IMAGES names, else those of `tools/build_images.py`, loaded into an own cluster."""
    if named := Images.in_registry():
        return named
    archives = archives_in(BUILT)
    if not archives:
        pytest.skip(f"no images in {BUILT}: run `python tools/build_images.py {' '.join(SERVICES)}`")
    if own_cluster is None:
        pytest.skip("WAN22_TEST_IMAGES does not name images (REPOSITORY:TAG) that the cluster of KUBECONFIG pulls")
    own_cluster.load(archives.values())
    return Images.of_archives(archives)


@pytest.fixture(scope="module", autouse=True)
def _free_volumes(own_cluster: NodeCluster | None, kubectl: Kubectl) -> None:
    """Offers the local volumes anew that a module before has left: nothing else does, and there are few."""
    if own_cluster is not None:
        recycle(own_cluster.layout, kubectl)


@pytest.fixture(scope="session")
def release(kubectl: Kubectl, images: Images, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Release]:
    """wan22 as Helm installs it, with two tiny models in its registry."""
    with Release(kubectl, images, tmp_path_factory.mktemp("release")).installed(T2V, TI2V) as made:
        yield made


@pytest.fixture(scope="session")
def caller(release: Release) -> Iterator[Caller]:
    """A client in another namespace."""
    with Caller.of(release) as made:
        yield made


@pytest.fixture
def pool(release: Release, request: pytest.FixtureRequest) -> Iterator[str]:
    """The name of a pool that a test may apply: its own; what is left of it goes with the test."""
    name = request.node.name.removeprefix("test_").replace("_", "-")[:30].strip("-")
    yield name
    if release.kubectl("get", "wanpool", name, *release.inside, "--ignore-not-found"):
        release.delete_pool(name)
