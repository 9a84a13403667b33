"""What became of everything that was accepted: looked up by the API, in the store, and on the disk of results."""

from __future__ import annotations

import asyncio
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import create_engine, func, select

from wan22.client import Client
from wan22.errors import Reason
from wan22.recipe import Recipe
from wan22.status import from_status
from wan22.v1.generation_pb2 import Generation
from wan22_gateway.store.schema import generations, previews, usage
from wan22_testing.faults.load import Accepted
from wan22_testing.faults.site import TENANTS, Site
from wan22_testing.simulated_worker.rendering import write_undisturbed

FINAL = {Generation.SUCCEEDED, Generation.FAILED, Generation.CANCELLED}
SETTLE_SECONDS = 300.0
"""Within which everything must be final once nothing happens any more."""
PER_SECOND = 1e-6
"""How far sums of seconds may differ, relatively: they are added in another order."""


@dataclass
class Verdict:
    """One sentence for each thing that is wrong, and what became of the rest."""

    lost: list[str] = field(default_factory=list)
    """Accepted and gone, or not final."""
    doubled: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    """Other videos than the undisturbed ones, failures without a reason, usage that does not add up, kept previews."""
    states: Counter[str] = field(default_factory=Counter)

    @property
    def faults(self) -> list[str]:
        """All of them."""
        return [*self.lost, *self.doubled, *self.wrong]


async def judge(site: Site, accepted: Accepted) -> Verdict:
    """Waits until all is final, at most so long, and looks at everything."""
    verdict = Verdict()
    done: dict[str, Generation] = {}
    with tempfile.TemporaryDirectory(dir=site.folder) as folder:
        for tenant in TENANTS:
            mine = [request for request, owner in accepted.tenants.items() if owner == tenant]
            async with site.client(tenant) as client:
                for request in mine:
                    generation = await _final(client, accepted.names[request], verdict)
                    if generation is not None:
                        done[request] = generation
                        await _judge_one(client, generation, accepted.prompts[request], Path(folder), verdict)
    for name, count in Counter(accepted.names.values()).items():
        if count > 1:
            verdict.doubled.append(f"{name} answers {count} requests.")
    await asyncio.to_thread(site.gateway.stop)
    _judge_store(site, accepted, done, verdict)
    return verdict


async def _final(client: Client, name: str, verdict: Verdict) -> Generation | None:
    try:
        async with asyncio.timeout(SETTLE_SECONDS):
            generation = await client.wait(name)
    except TimeoutError:
        verdict.lost.append(f"{name} is not final: {await client.get(name)}")
        return None
    verdict.states[Generation.State.Name(generation.state)] += 1
    return generation


async def _judge_one(client: Client, generation: Generation, prompt: str, folder: Path, verdict: Verdict) -> None:
    name = generation.name
    finals = [e async for e in client.watch(name) if e.HasField("state_change") and e.state_change.state in FINAL]
    if len(finals) != 1 or finals[0].state_change.state != generation.state:
        verdict.doubled.append(f"{name} has {len(finals)} final events, its state is {generation.state}.")
    if generation.state == Generation.FAILED:
        error = from_status(generation.error)
        if error.reason is not Reason.QUARANTINED:  # which is what deaths without a checkpoint lead to
            verdict.wrong.append(f"{name} failed: {error.message}")
    if generation.state != Generation.SUCCEEDED:
        return
    path, expected = folder / "video.mp4", folder / "expected.mp4"
    path.unlink(missing_ok=True)
    await client.download(name, path)
    recipe: Recipe = await client.recipe(name)
    await asyncio.to_thread(write_undisturbed, recipe, expected)
    asked = generation.parameters
    if (recipe.parameters["prompt"], recipe.parameters["seed"]) != (prompt, asked.seed):
        verdict.wrong.append(f"{name} has another request's recipe.")
    if path.read_bytes() != expected.read_bytes():
        verdict.wrong.append(f"{name} has another video than the undisturbed one.")


def _judge_store(site: Site, accepted: Accepted, done: dict[str, Generation], verdict: Verdict) -> None:
    """Compares the store's rows, whose gateway has stopped, with what callers know."""
    url = site.store if isinstance(site.store, str) else f"sqlite:///{site.store / 'store.sqlite'}"
    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    with engine.connect() as connection:
        rows = {row.id: row for row in connection.execute(select(generations))}
        sums = (func.sum(usage.c.generations), func.sum(usage.c.succeeded), func.sum(usage.c.gpu_seconds))
        previews_left = connection.execute(select(func.count()).select_from(previews)).scalar_one()
        used = {row[0]: row[1:] for row in connection.execute(select(usage.c.tenant, *sums).group_by(usage.c.tenant))}
    engine.dispose()
    if previews_left:
        verdict.wrong.append(f"{previews_left} previews are left although all is final.")
    known = {name.removeprefix("generations/") for name in accepted.names.values()}
    verdict.lost += [f"{name} has no row." for name in known - rows.keys()]
    verdict.doubled += [f"generations/{name} was accepted twice." for name in rows.keys() - known]
    for tenant in TENANTS:
        mine = [row for row in rows.values() if row.tenant == tenant]
        succeeded = sum(done[r].state == Generation.SUCCEEDED for r, t in accepted.tenants.items() if t == tenant)
        seconds = sum(row.charged_seconds for row in mine)
        told = used.get(tenant, (0, 0, 0.0))
        if tuple(told[:2]) != (len(mine), succeeded) or abs(told[2] - seconds) > PER_SECOND * max(1.0, seconds):
            text = f"{tenant} has used {told}, but has {len(mine)} generations, {succeeded} succeeded, {seconds} s."
            verdict.wrong.append(text)
    wanted = {row.video_key for row in rows.values() if row.video_key}
    there = {str(path.relative_to(site.videos)) for path in site.videos.rglob("*.mp4")}
    verdict.lost += [f"{key} is not on the disk of results." for key in wanted - there]
