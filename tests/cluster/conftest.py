from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from wan22.errors import FailedPrecondition
from wan22_testing.cluster.control_plane import ControlPlane
from wan22_testing.cluster.kubectl import Kubectl
from wan22_testing.cluster.programs import API_SERVER, CONTROLLERS, Programs

CRDS = Path(__file__).parents[2] / "helm/wan22/files/crds"


@pytest.fixture(scope="session")
def programs() -> Programs:
    found = Programs.find()
    try:
        found.require(*API_SERVER)
    except FailedPrecondition as error:
        pytest.skip(error.message)
    return found


@pytest.fixture(scope="session")
def control_plane(programs: Programs, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """One for all tests, each of which uses a namespace or names of its own."""
    with ControlPlane(tmp_path_factory.mktemp("control-plane"), programs) as control_plane:
        yield control_plane


@pytest.fixture(scope="session")
def node_plane(programs: Programs, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """One for all tests with nodes of the process kubelet: a silent node is soon NotReady."""
    try:
        programs.require(*CONTROLLERS)
    except FailedPrecondition as error:
        pytest.skip(error.message)
    soon = {"node-monitor-grace-period": "8s", "node-monitor-period": "1s"}
    folder = tmp_path_factory.mktemp("node-plane")
    with ControlPlane(folder, programs, controller_manager=soon) as control_plane:
        kubectl = control_plane.kubectl()
        kubectl("wait", "--for=create", "serviceaccount/default", "--timeout=60s")
        kubectl("apply", "--server-side", "--filename", str(CRDS))
        kubectl("wait", "--for=condition=Established", "crd/wanpools.wan22.dev", "crd/wanmodels.wan22.dev")
        yield control_plane


@pytest.fixture(scope="session")
def kubectl(control_plane: ControlPlane) -> Kubectl:
    """An administrator's, with wan22's kinds established."""
    kubectl = control_plane.kubectl()
    kubectl("apply", "--server-side", "--filename", str(CRDS))
    kubectl("wait", "--for=condition=Established", "crd/wanpools.wan22.dev", "crd/wanmodels.wan22.dev")
    return kubectl
