"""A real Kubernetes control plane: etcd, API server with RBAC on, controller-manager, scheduler."""

from __future__ import annotations

import json
import ssl
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

from wan22_testing.cluster.certificates import Authority, KeyPair
from wan22_testing.cluster.component import Component
from wan22_testing.cluster.kubeconfig import write_kubeconfig
from wan22_testing.cluster.kubectl import Kubectl
from wan22_testing.cluster.programs import API_SERVER, CONTROLLERS, Programs
from wan22_testing.service_process import free_port

SERVICE_ADDRESSES = "10.96.0.0/16"
SERVER_HOSTS = (
    *("localhost", "127.0.0.1", "10.96.0.1"),
    *("kubernetes", "kubernetes.default", "kubernetes.default.svc"),
)
PINGS = {"HTTP2_READ_IDLE_TIMEOUT_SECONDS": "3", "HTTP2_PING_TIMEOUT_SECONDS": "2"}
"""The controller-manager takes no node-monitor-grace-period at or below their sum."""
ISSUER = "https://kubernetes.default.svc"
LOOPBACK = "127.0.0.1"
NODES_PORT = 6443
"""Of the API server where nodes and pods call it: the one that network policies expect."""


class ControlPlane:
    """One cluster, all of it under a folder and on free ports of 127.0.0.1; use as a context manager.

    Any number run side by side, some 500 MB each. Where the programs' folder has no controller-manager and scheduler
    (envtest's), it runs without: then nothing is garbage-collected or scheduled. `controller_manager` and `scheduler`
    are more flags of those. With an `address` other than the loopback's, real nodes call it there, on port 6443.
    """

    def __init__(
        self,
        folder: Path,
        programs: Programs,
        *,
        address: str = LOOPBACK,
        controller_manager: Mapping[str, object] = MappingProxyType({}),
        scheduler: Mapping[str, object] = MappingProxyType({}),
    ) -> None:
        programs.require(*API_SERVER)
        self.folder = folder
        self._programs = programs
        self._address = address
        self._authority = Authority(folder / "certificates")
        self._token_key = self._authority.signing_key("service-accounts")
        self._server_pair = self._authority.issue("server", "kube-apiserver", hosts=sorted({*SERVER_HOSTS, address}))
        self._tls = ssl.create_default_context(cafile=self._authority.certificate)
        self._port = free_port() if address == LOOPBACK else NODES_PORT
        self.kubeconfig = self.kubeconfig_of("admin", groups=["system:masters"])
        self._controller_manager = controller_manager
        self._scheduler = scheduler
        self._etcd_port = free_port()
        self.etcd = self._etcd(self._etcd_port)
        self.api_server = self._api_server(self._etcd_port)
        self.controllers = [self._controller(name) for name in CONTROLLERS if programs.has(name)]

    @property
    def server(self) -> str:
        """The API server's URL."""
        return f"https://{self._address}:{self._port}"

    def __enter__(self) -> Self:
        try:
            self.etcd.start()
            self.etcd.wait_until_ready()
            self.api_server.start()
            self.api_server.wait_until_ready()
            for controller in self.controllers:
                controller.start()
            for controller in self.controllers:
                controller.wait_until_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Ends all of it: the API server before etcd, which it would wait for, and those that ask it first."""
        for component in (*reversed(self.controllers), self.api_server, self.etcd):
            component.kill()  # nothing that it holds is wanted any more

    def forget_history(self) -> None:
        """Drops all that is no more from etcd, as the API server does every five minutes: older watches expire."""
        newest = self._ask_etcd("range", {"key": "AA=="})["header"]["revision"]
        self._ask_etcd("compaction", {"revision": newest, "physical": True})

    def _ask_etcd(self, call: str, request: Mapping[str, object]) -> dict[str, Any]:
        url = f"http://127.0.0.1:{self._etcd_port}/v3/kv/{call}"
        body = json.dumps(request).encode()
        with urllib.request.urlopen(urllib.request.Request(url, body), timeout=20.0) as answer:
            answered: dict[str, Any] = json.load(answer)
        return answered

    def kubectl(self, kubeconfig: Path | None = None) -> Kubectl:
        """A kubectl that asks as the cluster's administrator, or as whom a kubeconfig says."""
        return Kubectl(self._programs.path("kubectl"), kubeconfig or self.kubeconfig)

    def kubeconfig_of(self, user: str, *, groups: list[str] | None = None) -> Path:
        """A kubeconfig of a user who may do what RBAC grants the name and the groups."""
        pair = self._authority.issue(user.replace(":", "-"), user, groups=groups or [])
        path = self.folder / f"{user.replace(':', '-')}.kubeconfig"
        return write_kubeconfig(path, server=self.server, authority=self._authority.certificate, user=pair)

    def write_kubeconfig(self, path: Path, *, server: str) -> Path:
        """An administrator's kubeconfig that reaches the API server elsewhere; complete as soon as it is there."""
        pair = self._authority.issue("outside", "outside", groups=["system:masters"])
        made = write_kubeconfig(
            path.with_suffix(".new"), server=server, authority=self._authority.certificate, user=pair
        )
        return made.rename(path)

    def issue(self, name: str, *, hosts: Sequence[str]) -> KeyPair:
        """A certificate of a server that the cluster asks, signed as the API server's own."""
        return self._authority.issue(name, name, hosts=hosts)

    def kubeconfig_of_service_account(self, namespace: str, name: str) -> Path:
        """A kubeconfig of a service account that exists, with a token of one hour."""
        token = self.kubectl()("create", "token", name, "--namespace", namespace).strip()
        path = self.folder / f"{namespace}-{name}.kubeconfig"
        return write_kubeconfig(path, server=self.server, authority=self._authority.certificate, user=token)

    def _etcd(self, client_port: int) -> Component:
        client, peer = f"http://127.0.0.1:{client_port}", f"http://127.0.0.1:{free_port()}"
        flags = {
            "data-dir": self.folder / "etcd",
            "listen-client-urls": client,
            "advertise-client-urls": client,
            "listen-peer-urls": peer,
            "initial-advertise-peer-urls": peer,
            "initial-cluster": f"default={peer}",
            "unsafe-no-fsync": "true",  # a test's cluster does not outlive the machine
            "log-level": "warn",
        }
        return self._component("etcd", flags, port=client_port, health="/health", tls=None)

    def _api_server(self, etcd_port: int) -> Component:
        flags = {
            "etcd-servers": f"http://127.0.0.1:{etcd_port}",
            "bind-address": "127.0.0.1",
            "secure-port": self._port,
            "tls-cert-file": self._server_pair.certificate,
            "tls-private-key-file": self._server_pair.key,
            "client-ca-file": self._authority.certificate,
            "authorization-mode": "Node,RBAC",
            "enable-admission-plugins": "NodeRestriction",
            "service-cluster-ip-range": SERVICE_ADDRESSES,
            "service-account-issuer": ISSUER,
            "service-account-key-file": self._token_key,
            "service-account-signing-key-file": self._token_key,
            "allow-privileged": "true",
            **({"endpoint-reconciler-type": "none"} if self._address == LOOPBACK else self._for_nodes()),
        }
        return self._component("kube-apiserver", flags, port=self._port, health="/readyz", tls=self._tls)

    def _for_nodes(self) -> dict[str, object]:
        """What the API server takes to call kubelets, and the API servers that are pods, from outside their network."""
        caller = self._authority.issue("kubelet-client", "kube-apiserver", groups=["system:masters"])
        proxy = self._authority.issue("front-proxy", "front-proxy")
        return {
            "bind-address": "0.0.0.0",  # noqa: S104  # the namespace's, which nothing leads to
            "advertise-address": self._address,
            "kubelet-client-certificate": caller.certificate,
            "kubelet-client-key": caller.key,
            "kubelet-preferred-address-types": "InternalIP",
            "enable-aggregator-routing": "true",  # no kube-proxy runs here
            "proxy-client-cert-file": proxy.certificate,
            "proxy-client-key-file": proxy.key,
            "requestheader-client-ca-file": self._authority.certificate,
            "requestheader-allowed-names": "front-proxy",
            "requestheader-username-headers": "X-Remote-User",
            "requestheader-group-headers": "X-Remote-Group",
            "requestheader-extra-headers-prefix": "X-Remote-Extra-",
        }

    def _controller(self, name: str) -> Component:
        port = free_port()
        kubeconfig = self.kubeconfig_of(f"system:{name}")
        flags: dict[str, object] = {
            "kubeconfig": kubeconfig,
            # also who asks for its health is known by the API server
            "authentication-kubeconfig": kubeconfig,
            "authorization-kubeconfig": kubeconfig,
            "leader-elect": "false",
            "bind-address": "127.0.0.1",
            "secure-port": port,
            "tls-cert-file": self._server_pair.certificate,
            "tls-private-key-file": self._server_pair.key,
        }
        if name == "kube-controller-manager":
            flags |= {
                "root-ca-file": self._authority.certificate,
                "service-account-private-key-file": self._token_key,
                "use-service-account-credentials": "true",
                **self._controller_manager,
            }
        else:
            flags |= self._scheduler
        return self._component(name, flags, port=port, health="/healthz", tls=self._tls)

    def _component(
        self, name: str, flags: dict[str, object], *, port: int, health: str, tls: ssl.SSLContext | None
    ) -> Component:
        log = self.folder / f"{name}.log"
        program = self._programs.path(name)
        return Component(program, log, flags, port=port, health=health, tls=tls, environment=PINGS)
