"""A cluster whose definitions are older than its operator: what they do not know is refused (kuberay issue 2084)."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from wan22_testing.cluster.control_plane import ControlPlane
from wan22_testing.cluster.helm import Helm
from wan22_testing.cluster.programs import CONTROLLERS, Programs
from wan22_testing.installation import Installation
from wan22_testing.tiny_models import shared_folder

from .operated import CRDS, T2V, Operated, until

NAMESPACE = "operator-older"
REST_SECONDS = 8.0
"""Four resyncs."""


def older(crd: dict[str, Any]) -> dict[str, Any]:
    """The definition without what an operator keeps its place by."""
    status = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"]["properties"]
    for field in ("workers", "nextOrdinal", "decision", "needs", "avoidedNodes"):
        del status[field]
    return crd


@pytest.mark.long
async def test_an_operator_that_cannot_record_what_it_decides_does_nothing_until_it_can(
    programs: Programs, tmp_path: Path
) -> None:
    if not all(programs.has(name) for name in CONTROLLERS):
        pytest.skip(f"{' and '.join(CONTROLLERS)} are not beside the API server: run `make kube-bin`")
    async with Installation(tmp_path) as installation:
        await installation.push(T2V, shared_folder(T2V))
        with ControlPlane(tmp_path / "cluster", programs) as control_plane:
            operated = Operated(control_plane, Helm(programs, control_plane.kubeconfig), installation, NAMESPACE)
            operated.kubectl("apply", "--server-side", "--filename", str(CRDS))
            operated.kubectl("wait", "--for=condition=Established", "crd/wanpools.wan22.dev", "--timeout=30s")
            operated.grant(tmp_path)
            operator = operated.operator()
            operator.start()
            await operator.until()
            operated.apply("older", scaling={"minReplicas": 1, "maxReplicas": 4})
            before = await until(lambda: operated.uids("older"), lambda found: len(found) == 1)

            definition = yaml.safe_load((CRDS / "wanpools.yaml").read_text())
            operated.kubectl.apply(older(definition))
            operated.apply("older", scaling={"minReplicas": 3, "maxReplicas": 4})
            await until(operator.log.read_text, lambda text: "field not declared in schema" in text)
            await asyncio.sleep(REST_SECONDS)  # what must not happen has so long to happen
            assert operated.uids("older") == before

            operated.kubectl("apply", "--server-side", "--filename", str(CRDS))
            await until(lambda: operated.status("older").get("observedGeneration"), lambda found: found == 2)
            assert operated.uids("older") == before  # no node takes it, so no other one is made
            assert operator.stop() == 0
