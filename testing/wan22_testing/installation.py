"""A whole wan22 on this machine, of real processes: what `wan22 up` runs, but each of them to be killed at will."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from wan22.channels import open_channel
from wan22.client import Client
from wan22.model_client import ModelClient
from wan22.model_packing import Packer
from wan22.v1 import pool_pb2, pool_pb2_grpc
from wan22.variants import model_of
from wan22_testing.authority import Authority
from wan22_testing.service_process import ServiceProcess, free_port

REAL_WORKER, SIMULATED_WORKER = "wan22_inference", "wan22_testing.simulated_worker"


class Installation:
    """One registry, a gateway and any number of workers under a folder; use as an async context manager.

    With an authority they speak TLS, each with a certificate of its role. Several replicas of the gateway need a
    `store` that they can share.
    """

    def __init__(
        self, folder: Path, authority: Authority | None = None, *, replicas: int = 1, **gateway_flags: Any
    ) -> None:
        self.folder = folder
        self._authority = authority
        self._tls = authority.issue("admin") if authority else None
        self.registry = ServiceProcess(
            "wan22_registry", folder / "registry.log", root=folder / "registry", **self._files("registry")
        )
        flags: dict[str, Any] = {"store": folder / "gateway", "results": folder / "videos", "auth": "off"}
        given = {**flags, **self._files("gateway"), "registry": self.registry.address, **gateway_flags}
        self.gateways = [self._replica(number, given) for number in range(replicas)]
        self.gateway = self.gateways[0]
        self.http_port = self.gateway.flags["http_port"]
        self.workers: dict[str, ServiceProcess] = {}
        self._versions: dict[str, str] = {}

    async def __aenter__(self) -> Self:
        self.registry.start()
        for gateway in self.gateways:
            gateway.start()
        await asyncio.gather(self.registry.until(), *(gateway.until() for gateway in self.gateways))
        return self

    async def __aexit__(self, *_: object) -> None:
        for process in (*self.workers.values(), *self.gateways, self.registry):
            if process.running:
                process.kill()

    def _files(self, role: str) -> dict[str, Any]:
        if self._authority is None:
            return {}
        tls = self._authority.issue(role)
        return {"tls_ca": tls.ca, "tls_cert": tls.cert, "tls_key": tls.key}

    def _replica(self, number: int, flags: Mapping[str, Any]) -> ServiceProcess:
        name = f"gateway{number or ''}"
        # Beside a shared store each replica has a folder of its own.
        own = {"scratch": self.folder / name} if isinstance(flags["store"], str) else {}
        return ServiceProcess(
            "wan22_gateway", self.folder / f"{name}.log", **{**own, "http_port": free_port(), **flags}
        )

    def client(self, replica: int = 0) -> Client:
        """The SDK, for a gateway."""
        return Client(self.gateways[replica].address, tls=self._tls)

    async def push(self, variant: str, folder: Path) -> str:
        """Pushes a model folder, packed, and returns the version's name."""
        async with ModelClient(self.registry.address, self._tls) as models:
            version = await models.push_folder(
                folder,
                model=model_of(variant),
                variant=variant,
                tags=["latest"],
                packer=Packer(self.folder / "packing", variant),
            )
        self._versions[variant] = version.name
        return version.name

    def use(self, variant: str, version: str) -> None:
        """Takes a version that is in the registry already for the variant's."""
        self._versions[variant] = version

    async def serve(
        self,
        variant: str,
        *worker_names: str,
        pool: str | None = None,
        distilled: bool = False,
        module: str = REAL_WORKER,
        **flags: Any,
    ) -> None:
        """Declares a pool, by default the variant's, with these workers, as an operator does; none is started yet.

        `module` is the program of the workers that are named here for the first time, `flags` are their settings. A
        pool of another name is not the variant's default.
        """
        for name in worker_names:
            if name in self.workers:
                continue
            self.workers[name] = ServiceProcess(
                module,
                self.folder / f"{name}.log",
                name=f"workers/{name}",
                uid=f"uid-{name}",
                pool=pool or pool_name(variant),
                registry=self.registry.address,
                model=self._versions[variant],
                cache=self.folder / "cache",
                scratch=self.folder / "scratch" / name,
                device="cpu",
                **self._files("worker"),
                **flags,
            )
        targets = [self.workers[name].address for name in worker_names]
        await self.declare(variant, *targets, pool=pool, distilled=distilled)

    async def declare(self, variant: str, *targets: str, pool: str | None = None, distilled: bool = False) -> None:
        """Declares a pool whose workers answer at the targets, each a host:port."""
        spec = pool_pb2.Pool(
            name=pool or pool_name(variant),
            variant=variant,
            model_version=self._versions[variant],
            max_workers=max(1, len(targets)),
            default_for_variant=pool is None,
            distilled=distilled,
            worker_targets=targets,
        )
        async with open_channel(self.gateway.address, self._tls) as channel:
            request = pool_pb2.ApplyPoolRequest(pool=spec)
            await pool_pb2_grpc.PoolServiceStub(channel).ApplyPool(request, timeout=30.0)

    async def start_workers(self, *names: str) -> None:
        """Starts workers and waits until each has its model in memory."""
        for name in names:
            self.workers[name].start()
        await asyncio.gather(*(self.workers[name].until() for name in names))

    async def until_known(self, *names: str) -> None:
        """Waits until the gateway has heard from these workers, which may be a round of its discovery later."""
        wanted = {f"workers/{name}" for name in names}
        async with open_channel(self.gateway.address, self._tls) as channel:
            pools = pool_pb2_grpc.PoolServiceStub(channel)
            async for state in pools.WatchPools(pool_pb2.WatchPoolsRequest(), timeout=60.0):
                if wanted <= {worker.name for pool in state.pools for worker in pool.workers if worker.alive}:
                    return


def pool_name(variant: str) -> str:
    """The pool that an Installation serves a variant by."""
    return f"pools/test.{variant}"
