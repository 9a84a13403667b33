"""The models of `wan22 up`: found in the registry, made when they are tiny, waited for when a person imports them."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from pathlib import Path
from typing import Self

from wan22.client import tls_from_environment
from wan22.errors import FailedPrecondition, NotFound
from wan22.model_client import ModelClient
from wan22.variants import VARIANTS, model_of
from wan22_cli import packing
from wan22_cli.local.child_process import bound_command
from wan22_cli.local.made_models import Made, MadeModels
from wan22_cli.local.plan import Plan
from wan22_cli.local.screen import Screen
from wan22_testing.trained_parts import sources_digest, turbo_adapters

LOOK_SECONDS = 2.0
"""How often the registry is asked for a model that a person is to import."""


class Models:
    """A connection to the registry; use as an async context manager."""

    def __init__(self, plan: Plan, screen: Screen) -> None:
        self._plan = plan
        self._screen = screen
        self._client = ModelClient(plan.registry_target, tls_from_environment())
        self._made = MadeModels(plan.home.made_models)

    async def __aenter__(self) -> Self:
        await self._client.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.__aexit__(None, None, None)

    async def begin_notes(self) -> None:
        """Begins to keep which models `up` has made; tiny ones that are there by then are taken for such."""
        if not self._made.kept:
            small = [variant.name for variant in VARIANTS.values() if variant.small]
            versions = {variant: await self.find(variant) for variant in small}
            self._made.begin({variant: version for variant, version in versions.items() if version})

    async def find(self, variant: str) -> str | None:
        """The name of the version that a variant's model has the tag `latest` at; None when there is none."""
        try:
            return (await self._client.resolve(model_of(variant))).name
        except NotFound:
            return None

    async def has(self, version: str) -> bool:
        """Whether the registry has a version, by its name."""
        try:
            await self._client.get_version(version)
        except NotFound:
            return False
        return True

    async def find_or_make(self, variant: str) -> str | None:
        """The name of the version to serve; None when a person has to import it, which it says how to do.

        A tiny variant's is made, also where another release has made the one that there is.
        """
        found = await self.find(variant)
        if VARIANTS[variant].small:
            sources = await asyncio.to_thread(sources_digest, variant)
            if found is None or self._made.is_outdated(variant, found, sources):
                return await self._make(variant, sources, found)
        elif found is None:
            command = f"wan22 models import DIR --variant {variant} --registry {self._plan.registry_target}"
            text = f"{variant}: the registry has no {model_of(variant)}. Import it from a folder as diffusers has it:"
            self._screen.say("model_missing", f"{text}\n  {command}", variant=variant)
        return found

    async def _make(self, variant: str, sources: str, found: str | None) -> str:
        """Makes and pushes a tiny variant's model, and its adapters of profile `turbo`."""
        text = "making its model, once; this takes seconds."
        if found is not None:
            text = f"its model is another release's: making this one's. The registry keeps {found}."
        self._screen.say("making_model", f"{variant}: {text}", variant=variant)
        self._made.note(variant, Made())
        folder = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix="tiny-", dir=self._plan.home.path))
        try:
            await self._run_trained(folder, variant)
            version = await self._client.push_folder(
                folder / variant,
                model=model_of(variant),
                variant=variant,
                tags=["latest"],
                packer=packing.packer(self._plan.home.packing, variant),
            )
            await self._push_turbo(variant)
        finally:
            await asyncio.to_thread(shutil.rmtree, folder)
        self._made.note(variant, Made(version.name, sources))
        return version.name

    async def wait_for(self, variant: str) -> str:
        """Returns the version's name once somebody has imported a variant's model."""
        while True:
            version = await self.find(variant)
            if version is not None:
                return version
            await asyncio.sleep(LOOK_SECONDS)

    async def _push_turbo(self, variant: str) -> None:
        for model, files in turbo_adapters(variant).items():
            adapter = await self._client.push(files, model=model, variant=variant, tags=["latest"])
            await self._client.approve_adapter(adapter.name)

    async def _run_trained(self, folder: Path, variant: str) -> None:
        """Runs as a process of its own: torch stays out of this one."""
        log = self._plan.home.logs / "tiny-models.log"
        with log.open("ab") as output:
            command = bound_command("wan22_testing.trained", [str(folder), variant])
            process = await asyncio.create_subprocess_exec(*command, stdout=output, stderr=output)
        try:
            code = await process.wait()
        except asyncio.CancelledError:
            process.kill()
            await process.wait()
            raise
        if code != 0:
            raise FailedPrecondition(f"The model of {variant} could not be made (exit code {code}): {log} says why.")
