from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from wan22.client import Client
from wan22.errors import FailedPrecondition
from wan22_testing.cluster.control_plane import ControlPlane
from wan22_testing.cluster.kubectl import Kubectl
from wan22_testing.cluster.programs import API_SERVER, CONTROLLERS, Programs
from wan22_testing.process_kubelet.kubelet import ProcessKubelet
from wan22_testing.service_process import ServiceProcess

from .operated import CRDS, Operated, nodes_of, operated_on, started


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


@pytest.fixture(scope="module")
def kubelet(
    node_plane: ControlPlane, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ProcessKubelet]:
    """The module's NODES, which run its IMAGES."""
    folder = tmp_path_factory.mktemp("nodes")
    with nodes_of(node_plane, folder, request.module.NODES, request.module.IMAGES) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def operated(
    node_plane: ControlPlane,
    kubelet: ProcessKubelet,
    programs: Programs,
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Operated]:
    """The module's NAMESPACE, whose operators have its SETTINGS."""
    module, folder = request.module, tmp_path_factory.mktemp("operated")
    async with operated_on(node_plane, programs, folder, module.NAMESPACE, **module.SETTINGS) as operated:
        yield operated


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def operator(operated: Operated) -> AsyncIterator[ServiceProcess]:
    """The one that the module's tests share; it may be killed, and be started again."""
    async with started(operated) as process:
        yield process


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(operated: Operated) -> AsyncIterator[Client]:
    """Of the module's gateway."""
    async with operated.installation.client() as opened:
        yield opened
