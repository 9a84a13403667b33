"""What must talk does, since all other tests work; here is what must not."""

from __future__ import annotations

import pytest

from .caller import Caller
from .release import Release, until

pytestmark = [pytest.mark.node, pytest.mark.timeout(1800)]
CONNECT = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 4)"
"""Ends with a stack trace where it cannot."""


def reaches(caller: Caller, host: str, port: int) -> bool:
    said = caller.run("sh", "-c", 'python -c "$1" "$2" "$3" 2>&1; echo $?', "sh", CONNECT, host, str(port))
    return said.splitlines()[-1] == "0"


def test_a_foreign_pod_reaches_the_gateway_alone(release: Release, caller: Caller, pool: str) -> None:
    release.apply(pool, scaling={"minReplicas": 1, "maxReplicas": 1})
    until(lambda: release.status(pool)["readyReplicas"], lambda ready: ready == 1)
    (worker,) = release.workers(pool).values()
    (cache, *_) = release.pods("node-cache")
    (operator,) = release.pods("operator")
    (registry,) = release.pods("registry")
    inside = f"{release.name}-gateway.{release.namespace}"
    found = {
        "gateway": reaches(caller, inside, 50051),
        "gateway's HTTP": reaches(caller, inside, 8080),
        "gateway's external scaler": reaches(caller, inside, 50053),
        "registry": reaches(caller, registry["status"]["podIP"], 50052),
        "node cache": reaches(caller, cache["status"]["podIP"], 50053),
        "worker": reaches(caller, worker["status"]["podIP"], 50061),
        "operator's metrics": reaches(caller, operator["status"]["podIP"], 8080),
    }
    assert {what for what, reached in found.items() if reached} == {"gateway", "gateway's HTTP"}
