"""The monitors of the chart, followed as the Prometheus operator follows them: pods by labels, ports by name."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from .caller import Caller
from .release import MONITORING, Release

pytestmark = [pytest.mark.node, pytest.mark.timeout(1800)]
MONITORS = "templates/monitors.yaml"
SCRAPE = """
import os, ssl, sys, urllib.request
scheme, address = sys.argv[1:]
trust = None
if scheme == "https":  # its certificate is for names, as the monitor's serverName says
    trust = ssl.create_default_context(cafile=os.environ["WAN22_CA_FILE"])
    trust.check_hostname = False
key = {"Authorization": "Bearer " + os.environ["WAN22_API_KEY"]}
request = urllib.request.Request(f"{scheme}://{address}/metrics", headers=key)
print(urllib.request.urlopen(request, timeout=20, context=trust).read().decode())
"""


@pytest.fixture
def prometheus(release: Release) -> Iterator[Caller]:
    """A pod in the namespace that may read metrics."""
    with Caller.of(release, MONITORING) as made:
        yield made


def scraped(release: Release, prometheus: Caller, monitor: dict[str, Any]) -> list[str]:
    """What the pods of a monitor say of themselves."""
    spec = monitor["spec"]
    (endpoint,) = spec.get("endpoints") or spec["podMetricsEndpoints"]
    labels = ",".join(f"{name}={value}" for name, value in spec["selector"]["matchLabels"].items())
    said = []
    for pod in release.kubectl.get("pods", *release.inside, "--selector", labels)["items"]:
        ports = [port for container in pod["spec"]["containers"] for port in container["ports"]]
        (port,) = [port["containerPort"] for port in ports if port["name"] == endpoint["port"]]
        address = f"{pod['status']['podIP']}:{port}"
        said.append(prometheus.run("python", "-c", SCRAPE, endpoint.get("scheme", "http"), address))
    return said


def test_every_monitor_finds_pods_that_answer(release: Release, prometheus: Caller) -> None:
    monitors = release.rendered(MONITORS, {**release.values(), "monitoring": {"enabled": True}})
    found = {one["metadata"]["name"]: scraped(release, prometheus, one) for one in monitors}
    assert {name.removeprefix(f"{release.name}-"): len(said) for name, said in found.items()} == {
        "gateway": 1,
        "registry": 1,
        "operator": 1,
        "node-cache": release.caches,
    }
    for name, metric in (
        ("gateway", "wan22_gateway_oldest_queued_seconds"),
        ("registry", "wan22_registry_blob_bytes"),
        ("operator", "wan22_operator_pools"),
        ("node-cache", "wan22_cache_used_bytes"),
    ):
        assert all(f"# TYPE {metric}" in said for said in found[f"{release.name}-{name}"]), name
