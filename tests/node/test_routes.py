"""The chart's Ingresses and Gateway API routes, by a real controller of both: gRPC and HTTP from outside."""

from __future__ import annotations

import asyncio
import base64
import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import av
import pytest

from wan22_testing.cluster.kubectl import Kubectl
from wan22_testing.nodes import traefik
from wan22_testing.nodes.cluster import NodeCluster

from .addons import addon
from .caller import Caller
from .images import Images
from .release import T2V, Release, until
from .test_network_policies import reaches

pytestmark = [pytest.mark.node, pytest.mark.timeout(1800)]
NAME = "routed"
LONG = ("--steps=80", "--frames=5", "--seed=7")
"""80 s, for which a watcher's stream stays open: longer than a controller's usual timeouts of 60 s."""
BY_HTTP = """
import json, os, ssl, sys, urllib.request
trusted = ssl.create_default_context(cafile=os.environ["WAN22_CA_FILE"])
key = {"Authorization": "Bearer " + os.environ["WAN22_API_KEY"]}
def ask(path, body=None):
    request = urllib.request.Request(sys.argv[1] + path, body, {**key, "Content-Type": "application/json"})
    return urllib.request.urlopen(request, timeout=300, context=trusted)
wanted = {"variant": sys.argv[2], "prompt": "a red kite", "detach": True,
          "parameters": {"num_inference_steps": 4, "num_frames": 5}}
made = json.load(ask("/generate", json.dumps(wanted).encode()))
path = "/generations/" + made["name"].partition("/")[2]
kinds = [line.split()[1].decode() for line in ask(path + "/events") if line.startswith(b"event:")]
assert kinds[-1] == "done", kinds
import base64
print(base64.b64encode(ask(path + "/video").read()).decode())
"""


@dataclass(frozen=True)
class Way:
    """One way in: its host names, which the certificate has."""

    purpose: str
    grpc: str
    http: str


INGRESS = Way("ingress", "grpc-ingress.wan22.test", "ingress.wan22.test")
ROUTES = Way("routes", "grpc-routes.wan22.test", "routes.wan22.test")


def values_of(release: Release) -> dict[str, Any]:
    """As a user would expose it by Traefik, in both ways at once."""
    values = release.values()
    values["workers"]["settings"] = {"step_seconds": 1, "load_seconds": 1, "checkpoint_seconds": 5}
    values["nodeCache"]["replicas"] = 1
    values["tls"] = {"gatewayNames": [name for way in (INGRESS, ROUTES) for name in (way.grpc, way.http)]}
    secret = f"{NAME}-gateway-tls"
    values["gateway"]["ingress"] = {
        "enabled": True,
        "className": traefik.CLASS,
        "http": {"host": INGRESS.http},
        "grpc": {"host": INGRESS.grpc},
        "tlsSecret": secret,
    }
    asked = "traefik.ingress.kubernetes.io/service"
    annotations = {f"{asked}.serversscheme": "https", f"{asked}.serverstransport": f"{NAME}-gateway@kubernetescrd"}
    values["gateway"]["service"] = {"annotations": annotations}
    values["gateway"]["routes"] = {
        "enabled": True,
        "parentRefs": [{"name": "public"}],
        "httpHostnames": [ROUTES.http],
        "grpcHostnames": [ROUTES.grpc],
    }
    from_traefik = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": traefik.NAME}}}
    values["networkPolicy"]["clients"] = [from_traefik]
    return values


def doors() -> list[dict[str, Any]]:
    """What the controller takes beside the chart's own: whom it trusts behind an Ingress, and a Gateway."""
    secret = f"{NAME}-gateway-tls"
    trusted = {"serverName": "gateway", "rootCAs": [{"secret": secret}]}
    listener = {
        "name": "https",
        "protocol": "HTTPS",
        "port": traefik.PORT,
        "tls": {"certificateRefs": [{"name": secret}]},
    }
    return [
        {
            "apiVersion": "traefik.io/v1alpha1",
            "kind": "ServersTransport",
            "metadata": {"name": "gateway", "namespace": NAME},
            "spec": trusted,
        },
        {
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "Gateway",
            "metadata": {"name": "public", "namespace": NAME},
            "spec": {"gatewayClassName": traefik.CLASS, "listeners": [listener]},
        },
    ]


@pytest.fixture(scope="module")
def routed(
    own_cluster: NodeCluster | None,
    kubectl: Kubectl,
    release: Release,
    images: Images,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Release]:
    """A release that is reached by a controller alone, with one worker."""
    if own_cluster is None:
        pytest.skip("where the controller of KUBECONFIG's cluster listens, and by which classes, is not known")
    made = Release(kubectl, images, tmp_path_factory.mktemp(NAME), NAME)
    with addon(traefik.TRAEFIK, own_cluster, kubectl, tmp_path_factory):
        made.create_namespace()
        for door in doors():
            kubectl.apply(door)
        made.helm("install", values=values_of(made))
        asyncio.run(made.push(T2V))
        made.apply("steady", scaling={"minReplicas": 1, "maxReplicas": 1})
        yield made
        made.delete_pool("steady")
        kubectl("delete", "namespace", made.namespace, "--timeout=580s")


@pytest.fixture(scope="module", params=[INGRESS, ROUTES], ids=["ingress", "routes"])
def way(request: pytest.FixtureRequest) -> Way:
    found: Way = request.param
    return found


@pytest.fixture(scope="module")
def outside(routed: Release, way: Way) -> Iterator[Caller]:
    """A client that finds the controller alone, under the release's public names."""
    address = routed.kubectl.get("service", traefik.NAME, f"--namespace={traefik.NAME}")["spec"]["clusterIP"]
    with Caller.of(routed, way.purpose, f"{way.grpc}:{traefik.PORT}", {address: (way.grpc, way.http)}) as made:
        yield made


def check_video(content: bytes) -> None:
    with av.open(io.BytesIO(content), "r") as video:
        assert len(list(video.decode(video=0))) == 5


def test_a_generation_is_made_watched_and_downloaded_by_grpc(outside: Caller, way: Way) -> None:
    (name,) = outside.queue(1, way.purpose, *LONG)
    states = [event["state_change"]["state"] for event in outside.events(name) if "state_change" in event]
    assert states[-1] == "SUCCEEDED"
    check_video(outside.video(name))


def test_a_generation_is_made_watched_and_downloaded_by_http(outside: Caller, way: Way) -> None:
    address = f"https://{way.http}:{traefik.PORT}"
    check_video(base64.b64decode(outside.run("python", "-c", BY_HTTP, address, T2V)))


def test_there_is_no_other_way_in(outside: Caller, routed: Release) -> None:
    inside = f"{routed.name}-gateway.{routed.namespace}"
    assert [port for port in (50051, 8080) if reaches(outside, inside, port)] == []


def test_the_controller_takes_the_routes_and_the_policy_of_their_backend(routed: Release) -> None:
    def conditions(kind: str, part: str) -> dict[str, str]:
        found = routed.kubectl.get(kind, f"{NAME}-gateway", *routed.inside).get("status", {}).get(part, [])
        return {one["type"]: one["status"] for parent in found for one in parent["conditions"]}

    good = {"Accepted": "True", "ResolvedRefs": "True"}
    wanted = {("httproute", "parents"): good, ("grpcroute", "parents"): good, ("backendtlspolicy", "ancestors"): good}
    until(lambda: {asked: conditions(*asked) for asked in wanted}, lambda found: found == wanted, seconds=120)
