"""Workers as they are in production, with the engine on a tiny model: most of the suite simulates them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from wan22_testing.chart import ROOT
from wan22_testing.cluster.kubectl import Kubectl
from wan22_testing.nodes.cluster import NodeCluster

from .caller import Caller
from .images import BUILT, WORKER, Images, reference_of
from .release import T2V, Release, until
from .test_generation import check_it_goes_from_zero_to_a_video
from .test_worker_loss import check_it_went_on, until_step

pytestmark = [pytest.mark.node, pytest.mark.timeout(1800)]
EXAMPLE = ROOT / "examples/tiny-cpu.yaml"
LONG = ("--steps=100", "--frames=81", "--seed=7")
STEP = 20


@pytest.fixture(scope="module")
def where(own_cluster: NodeCluster | None, images: Images) -> tuple[str, dict[str, Any]]:
    """The worker's image, and the labels of the nodes that have it: of an own cluster one alone, it is large."""
    if Images.in_registry():
        return images.name(WORKER), {}
    archive = BUILT / f"{WORKER}.tar"
    if own_cluster is None or not archive.is_file():
        pytest.skip(f"no image {archive}: run `python tools/build_images.py --build-arg ACCELERATOR=cpu {WORKER}`")
    place = own_cluster.layout.nodes[0]
    own_cluster.load([archive], place)
    return reference_of(archive), {"kubernetes.io/hostname": place.name}


@pytest.fixture(scope="module")
def real(
    kubectl: Kubectl,
    release: Release,
    images: Images,
    where: tuple[str, dict[str, Any]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Release]:
    """A release whose workers are real ones."""
    made = Release(kubectl, images, tmp_path_factory.mktemp("real"), "real")
    values = made.values()
    values["workers"] = {"image": where[0], "settings": {"checkpoint_seconds": 1}}
    values["nodeCache"] = {"enabled": False}
    with made.installed(T2V, values=values):
        yield made


@pytest.fixture(scope="module")
def asking(real: Release) -> Iterator[Caller]:
    """A client of that release."""
    with Caller.of(real) as made:
        yield made


@pytest.fixture
def real_pool(real: Release, where: tuple[str, dict[str, Any]]) -> Iterator[str]:
    """The example's, which is at zero."""
    example = yaml.safe_load(EXAMPLE.read_text())
    name: str = example["metadata"]["name"]
    real.apply(name, **example["spec"], scheduling={"nodeSelector": where[1]})
    yield name
    real.delete_pool(name)


def test_the_example_for_cpus_goes_from_zero_to_a_video_of_the_engine(
    real: Release, asking: Caller, real_pool: str
) -> None:
    check_it_goes_from_zero_to_a_video(real, asking, real_pool)


def test_a_generation_of_a_killed_engine_is_resumed_bit_for_bit(
    real: Release, asking: Caller, real_pool: str, nodes: NodeCluster
) -> None:
    (name,) = asking.queue(1, "killed", *LONG)
    until_step(asking, name, "killed", STEP)
    (busy,) = until(lambda: real.busy(real_pool), bool)
    nodes.kill(real.workers(real_pool)[busy])
    check_it_went_on(asking, name, "killed", *LONG)
