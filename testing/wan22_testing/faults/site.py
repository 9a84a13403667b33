"""What a campaign attacks: a gateway on a small disk, simulated workers, maybe PostgreSQL, and proxies in between."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Self

from wan22.client import Client
from wan22_gateway.identity.keys import new_secret
from wan22_gateway.store.postgres import migrate_postgres
from wan22_testing.cutting_proxy import CuttingProxy
from wan22_testing.postgres import PostgresServer
from wan22_testing.service_process import ServiceProcess
from wan22_testing.simulated_pool import VARIANT, VERSION, apply_pool, declare, put_tokenizer
from wan22_testing.small_disk import SmallDisk

POOL = f"pools/faults.{VARIANT}"
TENANTS = ("red", "green")
LEASE_SECONDS = 3.0
DISK_BYTES = 512 << 20
TIME_SCALE = 0.05
"""A generation of the load takes some seconds."""


class Site:
    """All processes under a folder; use as an async context manager. Without a disk of its own, none can be filled."""

    def __init__(self, folder: Path, workers: int, *, on_postgres: bool) -> None:
        self.folder = folder
        self.keys: Mapping[str, str] = {tenant: new_secret() for tenant in TENANTS}
        self.postgres = PostgresServer() if on_postgres else None
        self.disk: SmallDisk | None = SmallDisk(folder / "disk", DISK_BYTES)
        self.workers = {
            f"w{number}": ServiceProcess(
                "wan22_testing.simulated_worker",
                folder / f"w{number}.log",
                name=f"workers/w{number}",
                uid=f"uid-w{number}",
                pool=POOL,
                model=VERSION,
                variant=VARIANT,
                time_scale=TIME_SCALE,
                checkpoint_seconds=0.3,
                scratch=folder / "scratch",
            )
            for number in range(workers)
        }
        self.proxies: dict[str, CuttingProxy] = {}
        """Before each worker, and before the gateway by the name `gateway`."""
        self._operator_key = new_secret()

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            await self._start(stack)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def _start(self, stack: AsyncExitStack) -> None:
        data = self.folder / "disk"
        if self.disk is not None:
            try:
                stack.enter_context(self.disk)
            except PermissionError:
                self.disk = None
                data.mkdir(exist_ok=True)
        store: Path | str = data / "gateway"
        if self.postgres is not None:
            stack.enter_context(self.postgres)
            store = self.postgres.url(self.postgres.create())
            migrate_postgres(store, None)
        self.store = store
        keys = {key: (tenant, "user") for tenant, key in self.keys.items()}
        declare(self.folder / "tenants.json", {**keys, self._operator_key: (TENANTS[0], "admin")})
        put_tokenizer(data / "gateway")
        self.gateway = ServiceProcess(
            "wan22_gateway",
            self.folder / "gateway.log",
            store=store,
            scratch=data / "gateway",
            http="off",
            results=data / "videos",
            registry="localhost:1",
            tenants_file=self.folder / "tenants.json",
            lease_seconds=LEASE_SECONDS,
            worker_lease_seconds=LEASE_SECONDS,
            resume_wait_seconds=5.0,
            queue_limit=100_000,
        )
        stack.callback(self._kill_all)
        for name, process in (*self.workers.items(), ("gateway", self.gateway)):
            self.proxies[name] = await stack.enter_async_context(CuttingProxy(process.port, []))
            process.start()
        await asyncio.gather(*(process.until() for process in (*self.workers.values(), self.gateway)))
        targets = [f"127.0.0.1:{self.proxies[name].port}" for name in self.workers]
        await apply_pool(self.gateway.address, self._operator_key, POOL, targets)

    def client(self, tenant: str) -> Client:
        """The SDK in the tenant's name, by way of the proxy."""
        return Client(f"127.0.0.1:{self.proxies['gateway'].port}", self.keys[tenant], timeout=10.0)

    @property
    def videos(self) -> Path:
        """Where results are stored."""
        return self.folder / "disk" / "videos"

    def _kill_all(self) -> None:
        for process in (*self.workers.values(), self.gateway):
            if process.running:
                process.kill()
