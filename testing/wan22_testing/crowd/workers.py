"""Workers that share a process with hundreds of others."""

from __future__ import annotations

import asyncio

from wan22.v1 import pool_pb2
from wan22_inference.worker_server import serve_worker
from wan22_testing.crowd.pool_servicer import PlayedPools, States
from wan22_testing.process_kubelet.running import Hosted, Stage
from wan22_testing.simulated_worker.renderer import SimulatedRenderer
from wan22_testing.simulated_worker.settings import SimulatedWorkerSettings

VARIABLES = "WAN22_WORKER_"
PORTIONS = 4
MODEL_BYTES = 1 << 30


async def simulate(stage: Stage) -> int:
    """A simulated worker in all it does, gRPC and health on ports of the pod's address; a few hundred fit a process."""
    variables = {
        name.removeprefix(VARIABLES).lower(): value
        for name, value in stage.environment.items()
        if name.startswith(VARIABLES)
    }
    settings = SimulatedWorkerSettings.model_validate(variables | flags_of(stage))
    async with serve_worker(settings, SimulatedRenderer(settings)) as service:
        await stage.stopping.wait()
        service.worker.drain()
        await service.worker.until_empty(settings.drain_seconds)
    return 0


def played(pools: PlayedPools, load_seconds: float) -> Hosted:
    """A worker that the pools know of and that nobody can call: it loads, and is idle. Thousands fit a process."""

    async def play(stage: Stage) -> int:
        flags = flags_of(stage)
        worker = pool_pb2.PoolWorker(
            name=flags["name"],
            uid=flags["uid"],
            incarnation=flags["uid"],
            pool=flags["pool"],
            address=f"{stage.address}:{flags['port']}",
            state=States.LOADING,
            bytes_left=MODEL_BYTES,
            alive=True,
            model_version=flags["model"],
        )
        stage.health.update({"": True, "live": True, "ready": False})
        pools.join(worker)
        try:
            for portion in range(1, PORTIONS + 1):
                await asyncio.sleep(load_seconds / PORTIONS)
                worker.bytes_left = MODEL_BYTES * (PORTIONS - portion) // PORTIONS
            worker.state = States.IDLE
            stage.health["ready"] = True
            pools.join(worker)
            await stage.stopping.wait()
        finally:
            pools.leave(worker)
        return 0

    return play


def flags_of(stage: Stage) -> dict[str, str]:
    """What its command line says, by setting; a flag without a value is true."""
    given = [argument.removeprefix("--").partition("=") for argument in stage.arguments]
    return {name.replace("-", "_"): value if equals else "true" for name, equals, value in given}
