"""An operator with hundreds of pools, and what is measured of it."""

from __future__ import annotations

import asyncio
import os
import random
import time
import urllib.request
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from wan22_testing.cluster.api import Api
from wan22_testing.cluster.reflector import Reflector
from wan22_testing.service_process import ServiceProcess

from .operated import Operated, until

FOLLOW_SECONDS = 5.0
"""Within which 95 of 100 changes are to be followed, and rounds to be done."""
MEGABYTES = 300
CALLS = "wan22_operator_requests_total"
WRITES = ("PATCH", "POST", "DELETE")
"""Methods of the operator's calls; PUT is its Lease's alone, without a GPU budget."""


class Figures:
    """What the operator says of itself at one time: counts by name; buckets with their bound, calls by method."""

    def __init__(self, port: int) -> None:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=20) as answer:
            families = list(text_string_to_metric_families(answer.read().decode()))
        self._counts: dict[str, float] = {}
        for sample in (sample for family in families for sample in family.samples):
            if sample.labels.keys() <= {"le", "method", "code"}:
                name = f"{sample.name}{sample.labels.get('le', '')}{sample.labels.get('method', '')}"
                self._counts[name] = self._counts.get(name, 0.0) + sample.value

    def __getitem__(self, name: str) -> float:
        return self._counts.get(name, 0.0)

    def since(self, earlier: Figures, name: str) -> float:
        return self[name] - earlier[name]

    def writes_since(self, earlier: Figures) -> dict[str, float]:
        return {method: self.since(earlier, f"{CALLS}{method}") for method in WRITES}

    def p95_since(self, earlier: Figures) -> float:
        """The bound that 95 of 100 rounds kept."""
        prefix = "wan22_operator_round_seconds_bucket"
        rounds = self.since(earlier, "wan22_operator_round_seconds_count")
        bounds = [name.removeprefix(prefix) for name in self._counts if name.startswith(prefix)]
        return min(float(bound) for bound in bounds if self.since(earlier, prefix + bound) >= 0.95 * rounds)


def processor_seconds(process: ServiceProcess) -> float:
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def megabytes(process: ServiceProcess) -> float:
    resident = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
    return resident * os.sysconf("SC_PAGE_SIZE") / 1e6


def said(text: str) -> None:
    print(text, flush=True)  # noqa: T201  # pytest shows it with -s


class Followed:
    """The pools of a namespace and their workers, as a watch of the API server tells them, with times."""

    def __init__(self, api: Api, namespace: str) -> None:
        inside = f"namespaces/{namespace}"
        self.pools = Reflector(api, f"/apis/wan22.dev/v1alpha1/{inside}/wanpools", seen=self._see_pool)
        self.pods = Reflector(api, f"/api/v1/{inside}/pods", seen=self._see_pod)
        self.statuses: dict[str, dict[str, Any]] = {}
        """By pool."""
        self.settled: set[str] = set()
        """Pods that their kubelet calls ready."""
        self.created: dict[str, float] = {}
        """When each pod was first seen."""
        self.decided: dict[tuple[str, int], float] = {}
        """When a pool's status first had so many wanted workers."""
        self.changed = asyncio.Event()

    def _see_pool(self, pool: dict[str, Any]) -> None:
        name, status = pool["metadata"]["name"], pool.get("status", {})
        self.statuses[name] = status
        self.decided.setdefault((name, status.get("desiredReplicas", 0)), time.monotonic())
        self.changed.set()

    def _see_pod(self, pod: dict[str, Any]) -> None:
        name = pod["metadata"]["name"]
        self.created.setdefault(name, time.monotonic())
        conditions = {one["type"]: one["status"] for one in pod.get("status", {}).get("conditions", [])}
        if conditions.get("Ready") == "True":
            self.settled.add(name)
        self.changed.set()

    @property
    def ready(self) -> int:
        return sum(status.get("readyReplicas", 0) for status in self.statuses.values())

    @property
    def declared(self) -> int:
        conditions = [one for status in self.statuses.values() for one in status.get("conditions", [])]
        return sum(one["type"] == "Declared" and one["status"] == "True" for one in conditions)

    @property
    def versions(self) -> dict[str, str]:
        return {uid: pool["metadata"]["resourceVersion"] for uid, pool in self.pools.objects.items()}

    async def until(self, holds: Any, seconds: float) -> None:
        async with asyncio.timeout(seconds):
            while not holds():
                self.changed.clear()
                await self.changed.wait()


class Scene:
    """An operator with so many pools, and what is measured of it."""

    def __init__(self, operated: Operated, operator: ServiceProcess, api: Api, count: int) -> None:
        self.operated = operated
        self.operator = operator
        self.count = count
        self.followed = Followed(api, operated.namespace)
        self._api = api
        self._port = int(str(operator.flags["http_port"]))
        self._resync_seconds = float(str(operator.flags["resync_seconds"]))

    @property
    def figures(self) -> Figures:
        return Figures(self._port)

    async def all_ready(self, each: int, seconds: float) -> None:
        began = time.monotonic()
        await self.followed.until(lambda: self.followed.ready == each * self.count, seconds)
        took = time.monotonic() - began
        await self.followed.until(lambda: len(self.followed.settled) == each * self.count, seconds)
        said(f"{each * self.count} workers ready after {took:.1f} s more, {megabytes(self.operator):.0f} MB")

    async def at_rest(self) -> None:
        """Three resyncs without an event: nothing is written, and rounds, calls and memory are as promised."""
        rest = 3 * self._resync_seconds
        before = await self._settled()
        at, cpu = self.followed.versions, processor_seconds(self.operator)
        await asyncio.sleep(rest)  # what is measured is a time without an event
        after, used = self.figures, processor_seconds(self.operator) - cpu
        rounds = after.since(before, "wan22_operator_round_seconds_count")
        mean = after.since(before, "wan22_operator_round_seconds_sum") / rounds
        reads, writes = after.since(before, f"{CALLS}GET"), after.writes_since(before)
        p95, memory = after.p95_since(before), megabytes(self.operator)
        figures = (
            f"{self.count} pools, {self.followed.ready} workers at rest: {rounds / rest:.1f} rounds a second of "
            f"{1000 * mean:.0f} ms, 95 of 100 within {p95:g} s, {reads / rounds:.2f} reads a round, "
            f"{100 * used / rest:.0f} % of a core, {memory:.0f} MB"
        )
        said(figures)
        assert self.followed.versions == at, "nothing is written at rest"
        assert writes == dict.fromkeys(WRITES, 0), "nothing is written at rest"
        assert rounds >= 2 * self.count
        assert p95 <= FOLLOW_SECONDS, figures
        assert memory < MEGABYTES, figures

    async def _settled(self) -> Figures:
        """Once the events of what was last are written, too: a resync has passed without any."""
        before = self.figures
        for _ in range(20):
            await asyncio.sleep(self._resync_seconds)  # a time without an event is what is waited for
            now = self.figures
            if not any(now.writes_since(before).values()):
                return now
            before = now
        raise AssertionError(f"after 20 resyncs it still writes: {now.writes_since(before)}")

    async def follows(self, number: int, before: int, after: int) -> None:
        """Some pools get another number of workers, one after the other: the decision and the new pod come soon."""
        chosen = random.sample(sorted(self.followed.statuses), number)
        asked = {}
        for name in chosen:
            asked[name] = time.monotonic()
            path = f"/apis/wan22.dev/v1alpha1/namespaces/{self.operated.namespace}/wanpools/{name}"
            await self._api.patch(path, {"spec": {"scaling": {"minReplicas": after, "maxReplicas": after}}})
            await asyncio.sleep(0.2)  # changes come one by one
        pods = {name: f"{name}-{before}" for name in chosen}
        await self.followed.until(lambda: self.followed.created.keys() >= set(pods.values()), 300.0)
        decided = sorted(self.followed.decided[name, after] - asked[name] for name in chosen)
        created = sorted(self.followed.created[pods[name]] - asked[name] for name in chosen)
        p95, median = round(0.95 * number) - 1, number // 2
        figures = (
            f"of {self.count} pools {number} changed: decided within {decided[median]:.2f} s (half of them) and "
            f"{decided[p95]:.2f} s (95 of 100), the new pod there within {created[median]:.2f} and {created[p95]:.2f} s"
        )
        said(figures)
        assert created[p95] <= FOLLOW_SECONDS, figures
        expected = self.count * before + number * (after - before)
        await self.followed.until(lambda: self.followed.ready == len(self.followed.settled) == expected, 300.0)

    async def anew(self) -> None:
        """The operator is killed and started anew, with all workers there: it reads them all at once."""
        self.operator.kill()
        began = time.monotonic()
        self.operator.start()
        await self.operator.until()
        await until(lambda: self.figures["wan22_operator_pools"], lambda found: found == self.count, 600.0)
        took = time.monotonic() - began
        said(f"started anew: all were looked at after {took:.1f} s, {megabytes(self.operator):.0f} MB")
