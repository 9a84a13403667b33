"""Certificates by the real cert-manager: on every port at install, and renewed under a generation."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import av
import pytest

from wan22.client import Client
from wan22.tls import Tls
from wan22_testing.cluster.kubectl import Kubectl
from wan22_testing.cluster.port_forward import PortForward
from wan22_testing.nodes.addon import CERT_MANAGER
from wan22_testing.nodes.cluster import NodeCluster

from .addons import addon
from .caller import Caller
from .handshake import Port, Shown
from .images import Images
from .release import T2V, Release, until
from .test_worker_loss import UNFINISHED

pytestmark = [pytest.mark.node, pytest.mark.timeout(1800)]
NAME = "issued"
LONG = ("--steps=100", "--frames=5", "--seed=7")
"""200 s: a kubelet brings a Secret's change into its pods within a minute or two."""
KIND = "certificates.cert-manager.io"


@pytest.fixture(scope="module")
def issued(
    own_cluster: NodeCluster | None,
    kubectl: Kubectl,
    release: Release,
    images: Images,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Release]:
    """A release whose certificates are cert-manager's, by an authority of the release's own."""
    made = Release(kubectl, images, tmp_path_factory.mktemp(NAME), NAME)
    values = made.values()
    values["tls"] = {"mode": "certManager"}
    values["workers"]["settings"] = {"step_seconds": 2, "load_seconds": 1, "checkpoint_seconds": 2}
    values["nodeCache"]["replicas"] = 1
    with addon(CERT_MANAGER, own_cluster, kubectl, tmp_path_factory), made.installed(T2V, values=values):
        yield made


@pytest.fixture(scope="module")
def asking(issued: Release) -> Iterator[Caller]:
    """A client of that release."""
    with Caller.of(issued) as made:
        yield made


@pytest.fixture(scope="module")
def worker(issued: Release) -> Iterator[str]:
    """The pod of its one worker."""
    issued.apply("steady", scaling={"minReplicas": 1, "maxReplicas": 1})
    until(lambda: issued.status("steady")["readyReplicas"], lambda ready: ready == 1)
    (pod,) = issued.workers("steady")
    yield pod
    issued.delete_pool("steady")


@pytest.fixture(scope="module")
def ports(worker: str) -> list[Port]:
    """All that are behind TLS."""
    return [
        Port(f"deployment/{NAME}-gateway", 50051, "gateway"),
        Port(f"deployment/{NAME}-gateway", 8080, "gateway", "http/1.1"),
        Port(f"deployment/{NAME}-gateway", 50053, "gateway"),
        Port(f"statefulset/{NAME}-registry", 50052, "registry"),
        Port(f"statefulset/{NAME}-node-cache", 50053, "node-cache"),
        Port(f"pod/{worker}", 50061, "worker"),
    ]


def first_of(pem: str) -> str:
    """A chain's first certificate."""
    end = "-----END CERTIFICATE-----"
    return pem.partition(end)[0].strip() + f"\n{end}"


def shown(issued: Release, ports: list[Port]) -> dict[Port, Shown]:
    """What each port shows."""
    return {port: port.shown(issued) for port in ports}


def in_secrets(issued: Release, ports: list[Port]) -> dict[Port, Shown]:
    """What each port should show."""
    return {port: Shown(first_of(issued.secret(f"{port.role}-tls", "tls.crt")), plaintext=False) for port in ports}


def certificates(issued: Release) -> dict[str, dict[str, Any]]:
    """The release's, but for its authority's."""
    found = issued.kubectl.get(KIND, *issued.inside)["items"]
    return {one["metadata"]["name"]: one for one in found if not one["spec"].get("isCA")}


def ask_for_renewal(issued: Release, certificate: dict[str, Any]) -> None:
    """As `cmctl renew` does."""
    said = {"type": "Issuing", "status": "True", "reason": "ManuallyTriggered", "message": "By a test."}
    when = {"lastTransitionTime": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")}
    patch = {"status": {"conditions": [*certificate["status"]["conditions"], {**said, **when}]}}
    name = certificate["metadata"]["name"]
    flags = ("--subresource=status", "--type=merge", f"--patch={json.dumps(patch)}")
    issued.kubectl("patch", KIND, name, *issued.inside, *flags)


def check_video(content: bytes) -> None:
    with av.open(io.BytesIO(content), "r") as video:
        assert len(list(video.decode(video=0))) == 5


def test_every_port_shows_a_certificate_of_cert_manager_and_speaks_no_plaintext(
    issued: Release, ports: list[Port]
) -> None:
    states = {name: one["status"]["conditions"] for name, one in certificates(issued).items()}
    roles = ("admin", "gateway", "keda", "node-cache", "operator", "publisher", "registry", "worker")
    assert set(states) == {f"{NAME}-{role}-tls" for role in roles}
    assert {one["status"] for found in states.values() for one in found if one["type"] == "Ready"} == {"True"}
    assert shown(issued, ports) == in_secrets(issued, ports)


def test_a_video_is_made_from_outside_by_the_authority_alone(issued: Release, worker: str, tmp_path: Path) -> None:
    authority = tmp_path / "ca.crt"
    authority.write_text(issued.secret("gateway-tls", "ca.crt"))

    async def make(endpoint: str) -> Path:
        async with Client(endpoint, issued.secret("keys", "admin"), Tls(authority)) as client:
            made = await client.create(variant=T2V, prompt="a red kite", num_inference_steps=4, num_frames=5)
            await client.wait(made.name)
            return await client.download(made.name, tmp_path / "video.mp4")

    with PortForward(issued.kubectl, f"service/{NAME}-gateway", 50051, *issued.inside) as forward:
        port = forward.address.rpartition(":")[2]
        check_video(asyncio.run(make(f"localhost:{port}")).read_bytes())


def test_certificates_are_renewed_under_a_generation_which_goes_on(
    issued: Release, asking: Caller, ports: list[Port]
) -> None:
    before, old = certificates(issued), shown(issued, ports)
    (name,) = asking.queue(1, "renewed", *LONG)
    until(lambda: asking.generations("renewed")[name], lambda one: one["state"] == "RUNNING")
    for one in before.values():
        ask_for_renewal(issued, one)
    until(
        lambda: {name: one["status"]["revision"] for name, one in certificates(issued).items()},
        lambda now: now == {name: one["status"]["revision"] + 1 for name, one in before.items()},
    )
    wanted = in_secrets(issued, ports)
    assert not set(wanted.values()) & set(old.values())
    until(lambda: shown(issued, ports), lambda now: now == wanted)
    assert asking.generations("renewed")[name]["state"] == "RUNNING"
    said = issued.kubectl("logs", f"deployment/{NAME}-gateway", *issued.inside)
    assert "The certificate of /etc/wan22/tls/tls.crt was read again." in said
    until(lambda: asking.generations("renewed")[name], lambda one: one["state"] not in UNFINISHED)
    (later,) = asking.queue(1, "renewed", "--steps=4", "--frames=5")
    asking.events(later)
    ended = {key: (one["state"], one["attempt_count"]) for key, one in asking.generations("renewed").items()}
    assert ended == {name: ("SUCCEEDED", 1), later: ("SUCCEEDED", 1)}
    check_video(asking.video(name))
