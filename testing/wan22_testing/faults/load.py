"""What goes on while things break: tenants ask for videos, cancel some, and never give up on a request."""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

from wan22.client import Client
from wan22.errors import DeadlineExceeded, ResourceExhausted, Unavailable
from wan22_testing.faults.site import TENANTS, Site
from wan22_testing.simulated_pool import VARIANT

T = TypeVar("T")
CALLERS = 3
"""Of each tenant."""
CANCELLED_SHARE = 0.1
PENDING = 4
"""Generations that a caller has unfinished before it waits for the oldest."""


@dataclass
class Accepted:
    """What the gateway has taken, and of whom."""

    names: dict[str, str] = field(default_factory=dict)
    """Name of the generation by request id."""
    tenants: dict[str, str] = field(default_factory=dict)
    """Tenant by request id."""
    prompts: dict[str, str] = field(default_factory=dict)
    """By request id."""


class Load:
    """Callers of all tenants; `stop` ends them once each has its last answer."""

    def __init__(self, site: Site, seed: int) -> None:
        self._site = site
        self._seed = seed
        self._stopping = asyncio.Event()
        self.accepted = Accepted()

    def stop(self) -> None:
        """Has each caller end after the request that it is at."""
        self._stopping.set()

    async def run(self) -> None:
        """Returns after `stop`, when every request has been answered."""
        async with asyncio.TaskGroup() as callers:
            for tenant in TENANTS:
                for number in range(CALLERS):
                    callers.create_task(self._call(tenant, random.Random(f"{self._seed} {tenant} {number}")))  # noqa: S311

    async def _call(self, tenant: str, chance: random.Random) -> None:
        async with self._site.client(tenant) as client:
            pending: list[str] = []
            while not self._stopping.is_set():
                pending.append(await self._create(client, tenant, chance))
                if chance.random() < CANCELLED_SHARE:
                    await _until_answered(partial(client.cancel, pending[-1]))
                if len(pending) > PENDING:
                    await _until_answered(partial(client.wait, pending[0]))
                    del pending[0]

    async def _create(self, client: Client, tenant: str, chance: random.Random) -> str:
        request_id = str(uuid.UUID(int=chance.getrandbits(128)))
        prompt, seed = f"video {request_id}", chance.getrandbits(62)
        frames, steps = chance.choice([5, 17, 33]), chance.choice([4, 10, 40])
        preview_interval = chance.choice([0, 1])

        async def create() -> str:
            made = await client.create(
                variant=VARIANT,
                prompt=prompt,
                seed=seed,
                width=480,
                height=272,
                num_frames=frames,
                num_inference_steps=steps,
                request_id=request_id,
                preview_interval=preview_interval,
            )
            return made.name

        name = await _until_answered(create)
        self.accepted.names[request_id] = name
        self.accepted.tenants[request_id] = tenant
        self.accepted.prompts[request_id] = prompt
        return name


async def _until_answered(call: Callable[[], Awaitable[T]]) -> T:
    while True:
        try:
            return await call()
        except (Unavailable, DeadlineExceeded, ResourceExhausted):
            await asyncio.sleep(0.2)  # the client has waited itself; a full disk says when to come again
