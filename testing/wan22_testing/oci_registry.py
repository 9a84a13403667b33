"""A real OCI registry: Debian's docker-registry as a process on a free port."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import time
from pathlib import Path
from typing import Self

from wan22_testing.service_process import free_port

PROGRAM = "docker-registry"
START_SECONDS = 30.0


class OciRegistryProcess:
    """Serves a folder while its context lasts; `htpasswd` is a file of who may use it, by default everybody may."""

    def __init__(self, folder: Path, htpasswd: Path | None = None) -> None:
        self.folder = folder
        self.port = free_port()
        self._htpasswd = htpasswd
        self._process: asyncio.subprocess.Process | None = None

    @property
    def host(self) -> str:
        """host:port."""
        return f"127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        settings: dict[str, object] = {
            "version": "0.1",
            "storage": {"filesystem": {"rootdirectory": str(self.folder / "store")}, "delete": {"enabled": True}},
            "http": {"addr": self.host, "secret": "of a test"},
        }
        if self._htpasswd:
            settings["auth"] = {"htpasswd": {"realm": "test", "path": str(self._htpasswd)}}
        path = self.folder / "config.yml"
        path.write_text(json.dumps(settings))  # JSON is YAML
        log = self.folder / "log"
        with log.open("ab") as out:
            self._process = await asyncio.create_subprocess_exec(
                PROGRAM, "serve", str(path), stdout=out, stderr=out, env=_environment()
            )
        end = time.monotonic() + START_SECONDS
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", self.port)
            except ConnectionRefusedError:
                if self._process.returncode is not None or time.monotonic() > end:
                    raise AssertionError(f"{PROGRAM} does not serve:\n{log.read_text()[-4000:]}") from None
                await asyncio.sleep(0.02)
            else:
                writer.close()
                return self

    async def __aexit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.kill()
            await self._process.wait()

    @staticmethod
    def missing_programs() -> list[str]:
        """Which of the programs that tests of OCI registries need are not on PATH."""
        return [program for program in (PROGRAM, "skopeo") if shutil.which(program) is None]


def _environment() -> dict[str, str]:
    """Without REGISTRY_ variables, which would change its settings."""
    return {name: value for name, value in os.environ.items() if not name.startswith("REGISTRY_")}
