"""Two hundred pools at once: what a round costs, and that nothing is written at rest."""

from __future__ import annotations

import asyncio
import os
import time
import urllib.request
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from wan22_testing.cluster.control_plane import ControlPlane
from wan22_testing.cluster.helm import Helm
from wan22_testing.cluster.programs import Programs
from wan22_testing.installation import Installation
from wan22_testing.service_process import ServiceProcess, free_port
from wan22_testing.tiny_models import shared_folder

from .operated import T2V, Operated, until

NAMESPACE = "operator-many"
POOLS = tuple(f"pool-{number:03}" for number in range(200))
REST_SECONDS = 45.0
"""Three resyncs of a pool."""


def scraped(port: int) -> dict[str, float]:
    """What the operator says of itself: all samples without labels but the buckets' bound."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=20) as answer:
        families = list(text_string_to_metric_families(answer.read().decode()))
    samples = [sample for family in families for sample in family.samples]
    return {
        f"{sample.name}{sample.labels.get('le', '')}": sample.value
        for sample in samples
        if sample.labels.keys() <= {"le"}
    }


def processor_seconds(process: ServiceProcess) -> float:
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def megabytes(process: ServiceProcess) -> float:
    resident = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
    return resident * os.sysconf("SC_PAGE_SIZE") / 1e6


def versions(operated: Operated) -> dict[str, str]:
    pools = operated.kubectl.get("wanpools", *operated.inside)["items"]
    return {pool["metadata"]["name"]: pool["metadata"]["resourceVersion"] for pool in pools}


def declared(operated: Operated) -> int:
    pools = operated.kubectl.get("wanpools", *operated.inside)["items"]
    conditions = [one for pool in pools for one in pool.get("status", {}).get("conditions", [])]
    return sum(one["type"] == "Declared" and one["status"] == "True" for one in conditions)


@pytest.mark.long
@pytest.mark.timeout(600)
async def test_two_hundred_pools_are_looked_after_at_little_cost(
    node_plane: ControlPlane, programs: Programs, tmp_path: Path
) -> None:
    async with Installation(tmp_path) as installation:
        await installation.push(T2V, shared_folder(T2V))
        operated = Operated(node_plane, Helm(programs, node_plane.kubeconfig), installation, NAMESPACE)
        operated.grant(tmp_path)
        port = free_port()
        operator = operated.operator(resync_seconds=15, lease_seconds=15, http_port=port)
        operator.start()
        await operator.until()
        began = time.monotonic()
        operated.apply(*POOLS, scaling={"maxReplicas": 2})
        await until(lambda: declared(operated), lambda found: found == len(POOLS), 180.0)
        took = time.monotonic() - began

        await until(lambda: scraped(port)["wan22_operator_pools"], lambda found: found == len(POOLS))
        before, cpu, at = scraped(port), processor_seconds(operator), versions(operated)
        await asyncio.sleep(REST_SECONDS)  # what is measured is a time without an event
        after = scraped(port)
        used = (processor_seconds(operator) - cpu) / REST_SECONDS
        rounds = after["wan22_operator_round_seconds_count"] - before["wan22_operator_round_seconds_count"]
        seconds = after["wan22_operator_round_seconds_sum"] - before["wan22_operator_round_seconds_sum"]
        slow = rounds - (
            after["wan22_operator_round_seconds_bucket5.0"] - before["wan22_operator_round_seconds_bucket5.0"]
        )
        figures = (
            f"{len(POOLS)} pools declared in {took:.1f} s; at rest {rounds / REST_SECONDS:.1f} rounds a second of "
            f"{1000 * seconds / rounds:.0f} ms, {100 * used:.0f} % of a core, {megabytes(operator):.0f} MB"
        )
        print(figures)  # noqa: T201  # pytest shows it with -s
        assert versions(operated) == at, "nothing is written at rest"
        assert rounds >= 2 * len(POOLS)
        assert slow <= 0.05 * rounds, figures
        assert megabytes(operator) < 300, figures

        await asyncio.to_thread(operated.kubectl, "delete", "wanpools", "--all", *operated.inside, "--timeout=50s")
        await until(lambda: scraped(port)["wan22_operator_pools"], lambda found: found == 0)
        assert operator.stop() == 0
