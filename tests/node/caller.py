"""A client of wan22 in a namespace of its own: it finds the gateway by name, and has a key and the authority."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Self

from .release import RESTRICTED, T2V, Release

CALLER = "caller"
KEYS = "key"


class Caller:
    """Runs the `wan22` command in a pod, of a Deployment: nodes are drained.

    It calls the gateway by its Service, or by another endpoint, whose host it finds among `hosts`: names by address.
    """

    def __init__(
        self,
        release: Release,
        purpose: str = "callers",
        endpoint: str = "",
        hosts: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        self._release = release
        self._endpoint = endpoint or f"{release.name}-gateway.{release.namespace}:50051"
        self._hosts = hosts or {}
        self._kubectl = release.kubectl
        self._namespace = f"{release.name}-{purpose}"
        self._inside = ("--namespace", self._namespace)

    @classmethod
    @contextmanager
    def of(
        cls,
        release: Release,
        purpose: str = "callers",
        endpoint: str = "",
        hosts: Mapping[str, Sequence[str]] | None = None,
    ) -> Iterator[Self]:
        """One that is there as long as it is asked for."""
        made = cls(release, purpose, endpoint, hosts)
        made.create()
        yield made
        made.delete()

    def create(self) -> None:
        """Makes the namespace and the pod, and waits for it."""
        metadata = {"name": self._namespace, "labels": RESTRICTED}
        self._kubectl.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": KEYS, "namespace": self._namespace}}
        known = {"key": self._release.secret("keys", "admin"), "ca.crt": self._release.secret("gateway-tls", "ca.crt")}
        self._kubectl.apply({**secret, "stringData": known})
        self._kubectl.apply(self._deployment())
        self._until_ready()

    def leave(self, node: str) -> None:
        """Goes to another node, if it is on this one."""
        pods = self._kubectl.get("pods", *self._inside)["items"]
        there = [pod["metadata"]["name"] for pod in pods if pod["spec"].get("nodeName") == node]
        if there:
            self._kubectl("cordon", node)
            self._kubectl("delete", "pod", *there, *self._inside, "--timeout=580s")
            self._until_ready()
            self._kubectl("uncordon", node)

    def delete(self) -> None:
        """Removes the namespace."""
        self._kubectl("delete", "namespace", self._namespace, "--timeout=580s")

    def run(self, *command: str) -> str:
        """What a command in the pod prints. Raises Refused."""
        return self._kubectl("exec", f"deployment/{CALLER}", *self._inside, "--", *command)

    def queue(self, count: int, label: str, *flags: str, variant: str = T2V) -> list[str]:
        """Accepts generations under a label, one after the other; returns their names."""
        command = f'for n in $(seq {count}); do wan22 generate "a red kite" --detach --json "$@" || exit 1; done'
        said = self.run("sh", "-c", command, "sh", f"--label=batch={label}", f"--variant={variant}", *flags)
        return [json.loads(line)["name"] for line in said.splitlines()]

    def generations(self, label: str) -> dict[str, dict[str, Any]]:
        """All of a label as the gateway lists them, by name."""
        said = self.run("wan22", "generations", "list", "--json", "--limit=1000", f"--label=batch={label}")
        found = [json.loads(line) for line in said.splitlines()]
        return {one["name"]: one for one in found}

    def events(self, name: str) -> list[dict[str, Any]]:
        """All events of a generation, which is watched to its end."""
        return [json.loads(line) for line in self.run("wan22", "generations", "watch", name, "--json").splitlines()]

    def video(self, name: str) -> bytes:
        """A finished generation's MP4."""
        command = 'wan22 generations download "$1" --output /tmp/video.mp4 >/dev/null && base64 /tmp/video.mp4'
        return base64.b64decode(self.run("sh", "-c", command, "sh", name))

    def _deployment(self) -> dict[str, Any]:
        container = {
            "name": CALLER,
            "image": self._release.images.name("gateway"),
            "imagePullPolicy": self._release.images.pull_policy,
            "command": ["sleep", "infinity"],
            "env": [
                {"name": "HOME", "value": "/tmp"},  # noqa: S108  # a pod's own
                {"name": "WAN22_ENDPOINT", "value": self._endpoint},
                {"name": "WAN22_CA_FILE", "value": "/etc/wan22/ca.crt"},
                {"name": "WAN22_API_KEY", "valueFrom": {"secretKeyRef": {"name": KEYS, "key": "key"}}},
            ],
            "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
            "resources": {"requests": {"cpu": "10m", "memory": "64Mi"}, "limits": {"memory": "1Gi"}},
            "volumeMounts": [{"name": "key", "mountPath": "/etc/wan22", "readOnly": True}],
        }
        pod = {
            "terminationGracePeriodSeconds": 0,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "hostAliases": [{"ip": address, "hostnames": [*names]} for address, names in self._hosts.items()],
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 10001,
                "runAsGroup": 10001,
                "fsGroup": 10001,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [container],
            "volumes": [{"name": "key", "secret": {"secretName": KEYS, "defaultMode": 0o440}}],
        }
        labels = {"app": CALLER}
        template = {"metadata": {"labels": labels}, "spec": pod}
        return {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": CALLER, "namespace": self._namespace},
            "spec": {"selector": {"matchLabels": labels}, "template": template},
        }

    def _until_ready(self) -> None:
        self._kubectl("rollout", "status", f"deployment/{CALLER}", *self._inside, "--timeout=580s")
