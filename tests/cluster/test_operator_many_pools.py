"""Hundreds of pools at once: what a round costs, and that nothing is written at rest."""

from __future__ import annotations

import asyncio
import os
import time
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from wan22_testing.cluster.control_plane import ControlPlane
from wan22_testing.cluster.programs import Programs
from wan22_testing.process_kubelet.images import Image
from wan22_testing.process_kubelet.node import NodeSpec
from wan22_testing.service_process import ServiceProcess, free_port

from .operated import Operated, nodes_of, operated_on, until

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


@asynccontextmanager
async def many(
    plane: ControlPlane, programs: Programs, folder: Path, namespace: str, count: int, loads: int = 4, **scaling: int
) -> AsyncIterator[tuple[Operated, ServiceProcess, int]]:
    """An operator, the port of its figures, and so many pools that the gateway knows."""
    async with operated_on(plane, programs, folder, namespace) as operated:
        port = free_port()
        operator = operated.operator(resync_seconds=15, lease_seconds=60, http_port=port, loads_per_node=loads)
        operator.start()
        await operator.until()
        names = [f"pool-{number:04}" for number in range(count)]
        began = time.monotonic()
        operated.apply(*names, image="wan22/sleeps:1", scaling={"maxReplicas": 2, **scaling})
        await until(lambda: declared(operated), lambda found: found == count, 900.0)
        print(f"{count} pools declared in {time.monotonic() - began:.1f} s")  # noqa: T201  # pytest shows it with -s
        await until(lambda: scraped(port)["wan22_operator_pools"], lambda found: found == count)
        yield operated, operator, port
        await asyncio.to_thread(operated.kubectl, "delete", "wanpools", "--all", *operated.inside, "--wait=false")
        await until(lambda: scraped(port)["wan22_operator_pools"], lambda found: found == 0, 240.0)
        assert operator.stop() == 0


async def at_rest(operated: Operated, operator: ServiceProcess, port: int, count: int) -> None:
    """Three resyncs without an event: nothing is written, 95 of 100 rounds take less than 5 s, under 300 MB."""
    before, cpu, at = scraped(port), processor_seconds(operator), versions(operated)
    await asyncio.sleep(REST_SECONDS)  # what is measured is a time without an event
    after = scraped(port)
    used = (processor_seconds(operator) - cpu) / REST_SECONDS
    grown = {name: value - before.get(name, 0.0) for name, value in after.items()}
    rounds, seconds = grown["wan22_operator_round_seconds_count"], grown["wan22_operator_round_seconds_sum"]
    bounds = {float(name.partition("bucket")[2]): value for name, value in grown.items() if "round_seconds_b" in name}
    p95 = min(bound for bound, number in bounds.items() if number >= 0.95 * rounds)
    figures = (
        f"{count} pools at rest: {rounds / REST_SECONDS:.1f} rounds a second of {1000 * seconds / rounds:.0f} ms, "
        f"95 of 100 within {p95:g} s, {100 * used:.0f} % of a core, {megabytes(operator):.0f} MB"
    )
    print(figures)  # noqa: T201  # pytest shows it with -s
    assert versions(operated) == at, "nothing is written at rest"
    assert rounds >= 2 * count
    assert p95 <= 5.0, figures
    assert megabytes(operator) < 300, figures


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("count", [200, 1000])
async def test_hundreds_of_pools_are_looked_after_at_little_cost(
    node_plane: ControlPlane, programs: Programs, tmp_path: Path, count: int
) -> None:
    async with many(node_plane, programs, tmp_path, f"operator-many-{count}", count) as (operated, operator, port):
        await at_rest(operated, operator, port, count)


@pytest.mark.long
@pytest.mark.timeout(5400)
@pytest.mark.usefixtures("kubectl")
@pytest.mark.parametrize("count", [50, 1000])
async def test_pools_of_five_workers_each_are_looked_after_at_little_cost(
    control_plane: ControlPlane, programs: Programs, tmp_path: Path, count: int
) -> None:
    """Five thousand pods in one namespace, for which there is no node: what counts is what looking at them costs."""
    each, name = 5, f"operator-crowds-{count}"
    scaling = {"minReplicas": each, "maxReplicas": each}
    async with many(control_plane, programs, tmp_path, name, count, loads=each, **scaling) as made:
        operated, operator, port = made
        began = time.monotonic()

        def recorded() -> int:
            pools = operated.kubectl.get("wanpools", *operated.inside)["items"]
            return sum(bool(worker.get("uid")) for pool in pools for worker in pool["status"]["workers"])

        await until(recorded, lambda found: found == each * count, 3600.0)  # the first of each is tried alone
        print(f"{each * count} pods are there after {time.monotonic() - began:.1f} s more")  # noqa: T201
        await at_rest(operated, operator, port, count)


@pytest.mark.long
@pytest.mark.timeout(1200)
async def test_two_hundred_pools_have_a_worker_each_at_little_cost(
    node_plane: ControlPlane, programs: Programs, tmp_path: Path
) -> None:
    """Workers that never get further than to start: a process that sleeps, as two hundred others would not fit here."""
    nodes, count = [NodeSpec(f"many-{number}", gpus=50) for number in range(4)], 200
    images = {"wan22/sleeps": Image(("sh", "-c", "exec sleep 3600", "worker"))}
    with nodes_of(node_plane, tmp_path / "nodes", nodes, images):
        async with many(node_plane, programs, tmp_path, "operator-crowd", count, minReplicas=1) as made:
            operated, operator, port = made
            began = time.monotonic()

            def running() -> int:
                pods = operated.kubectl.get("pods", *operated.inside)["items"]
                return sum(pod["status"]["phase"] == "Running" for pod in pods)

            await until(running, lambda found: found == count, 600.0)
            print(f"{count} workers run after {time.monotonic() - began:.1f} s more")  # noqa: T201
            await at_rest(operated, operator, port, count)
