"""Which processes run where: the ports, folders and flags of `wan22 up`."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from wan22_cli.home import Home
from wan22_cli.local.child_process import ProcessSpec

HOST = "127.0.0.1"
WORKER_PORTS = 10
"""Workers' ports start this far above the gateway's."""
HEALTH_PORTS = 1000
"""A process's health port lies this far above its port."""
HTTP_PORT = 8080
"""The gateway's HTTP port beside its own default port."""
HTTP_PORTS = 2000
"""Beside another port, the HTTP port lies this far above it."""
GRPC_PORT = 50051

DRAIN_SECONDS = 5.0
"""How long Ctrl-C lets a worker finish. What it cannot is queued again and kept: it runs at the next `up`."""
NOTHING: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True)
class Plan:
    """One machine's processes; a slot (a variant and its index) always gets the same port."""

    home: Home
    variants: Sequence[str]
    workers: int
    """Workers of each variant."""
    port: int
    """The gateway's; the registry has the next one."""
    http_port: int
    """The gateway's, of HTTP."""

    @property
    def endpoint(self) -> str:
        """Where the gateway answers."""
        return f"{HOST}:{self.port}"

    @property
    def http_address(self) -> str:
        """Where the gateway answers HTTP."""
        return f"http://{HOST}:{self.http_port}"

    @property
    def registry_target(self) -> str:
        """Where the registry answers."""
        return f"{HOST}:{self.port + 1}"

    def registry(self) -> ProcessSpec:
        """The model registry."""
        return self._spec("registry", "wan22_registry", self.port + 1, ["--root", str(self.home.registry)])

    def gateway(self) -> ProcessSpec:
        """The gateway, open to everybody on this machine."""
        arguments = ["--store", str(self.home.gateway)]
        if "WAN22_GATEWAY_RESULTS" not in os.environ:  # which may name a bucket: the home has but a folder
            arguments += ["--results", str(self.home.videos)]
        arguments += ["--registry", self.registry_target, "--auth", "off", "--reflection"]
        arguments += ["--http-port", str(self.http_port)]
        return self._spec("gateway", "wan22_gateway", self.port, arguments, http_port=self.http_port)

    def worker_targets(self, variant: str) -> list[str]:
        """host:port of each of a variant's workers."""
        first = self.port + WORKER_PORTS + self._worker_number(variant, 0)
        return [f"{HOST}:{first + index}" for index in range(self.workers)]

    def worker(self, variant: str, index: int, version: str) -> ProcessSpec:
        """A variant's worker with a model version in memory."""
        name = f"{variant}-{index}"
        number = self._worker_number(variant, index)
        arguments = ["--name", f"workers/{name}", "--uid", f"local-{name}", "--pool", pool_name(variant)]
        arguments += ["--model", version, "--registry", self.registry_target, "--drain-seconds", f"{DRAIN_SECONDS:g}"]
        arguments += ["--cache", str(self.home.cache), "--scratch", str(self.home.scratch)]
        port = self.port + WORKER_PORTS + number
        return self._spec(f"worker-{name}", "wan22_inference", port, arguments, gpu_of(number))

    def check_ports(self) -> None:
        """Raises FailedPrecondition when something else listens on one of the ports."""
        for spec in self._all():
            spec.check_ports()

    def _all(self) -> Iterator[ProcessSpec]:
        yield self.registry()
        yield self.gateway()
        for variant in self.variants:
            for index in range(self.workers):
                yield self.worker(variant, index, "")

    def _worker_number(self, variant: str, index: int) -> int:
        return self.variants.index(variant) * self.workers + index

    def _spec(
        self,
        name: str,
        module: str,
        port: int,
        arguments: list[str],
        environment: Mapping[str, str] = NOTHING,
        http_port: int | None = None,
    ) -> ProcessSpec:
        health_port = port + HEALTH_PORTS
        listen = ["--host", HOST, "--port", str(port), "--health-port", str(health_port)]
        return ProcessSpec(
            name=name,
            module=module,
            arguments=[*listen, *arguments],
            host=HOST,
            port=port,
            health_port=health_port,
            http_port=http_port,
            log=self.home.logs / f"{name}.log",
            environment={"WAN22_HOME": str(self.home.path), **environment},
        )


def http_port_beside(port: int) -> int:
    """The gateway's HTTP port where none is named, by its port: two `up` with ports of their own do not meet."""
    return HTTP_PORT if port == GRPC_PORT else port + HTTP_PORTS


def pool_name(variant: str) -> str:
    """The pool of a variant on this machine."""
    return f"pools/local.{variant}"


def gpu_of(number: int) -> Mapping[str, str]:
    """Spreads workers over the GPUs where there are several; otherwise each worker looks for itself."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    devices = [path.name.removeprefix("nvidia") for path in Path("/dev").glob("nvidia[0-9]*")]
    gpus = sorted(devices, key=int) if visible is None else [gpu for gpu in visible.split(",") if gpu]
    return {"CUDA_VISIBLE_DEVICES": gpus[number % len(gpus)]} if len(gpus) > 1 else NOTHING
