"""kill -9 of a real registry process while versions come and go."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Iterator
from pathlib import Path

from wan22.channels import open_channel
from wan22.errors import Unavailable
from wan22.model_client import ModelClient
from wan22.v1 import model_pb2, model_pb2_grpc
from wan22_testing.service_process import ServiceProcess

from . import model_folder

T2V = "t2v-a14b-tiny"
ROUNDS = 4
"""`tests/faults/test_registry_kills.py` has 200."""


class Ledger:
    """What the registry has confirmed."""

    def __init__(self, files: list[model_pb2.File], moments: random.Random) -> None:
        self.published: set[str] = set()
        self.deleting: set[str] = set()
        """Asked to be deleted; confirmed or not."""
        self.deleted: set[str] = set()
        self.confirmed = asyncio.Event()
        """Set once something was confirmed since it was cleared."""
        self.has_deleted = asyncio.Event()
        self._files = files
        self._tags = itertools.count()
        self._moments = moments

    def requests(self) -> Iterator[model_pb2.PublishVersionRequest]:
        """Ever other versions of the same blobs."""
        while True:
            tag = f"t{next(self._tags)}"
            files = [
                model_pb2.File(path=f"{tag}/{file.path}", digest=file.digest, size_bytes=file.size_bytes)
                for file in self._files
            ]
            yield model_pb2.PublishVersionRequest(model="m", variant=T2V, files=files, tags=[tag])

    async def work(self, address: str) -> None:
        """Publishes and deletes, until the registry is gone."""
        async with open_channel(address) as channel, ModelClient(address, first_patience=0, patience=0) as client:
            stub = model_pb2_grpc.ModelServiceStub(channel)
            for request in self.requests():
                name = (await stub.PublishVersion(request, timeout=30)).name
                self.published.add(name)
                self.confirmed.set()
                if self._moments.random() < 0.4:
                    name = self._moments.choice(sorted(self.published - self.deleting))
                    self.deleting.add(name)
                    await client.delete(name)
                    self.deleted.add(name)
                    self.has_deleted.set()


async def test_kill_9_while_versions_come_and_go_loses_nothing_and_shows_nothing_half(
    tmp_path: Path, moments: random.Random
) -> None:
    process = ServiceProcess("wan22_registry", tmp_path / "log", root=tmp_path / "registry")
    process.start()
    await process.until()
    try:
        async with ModelClient(process.address) as client:
            folder = model_folder.write(tmp_path / "m", moments.randbytes(100_000))
            kept = await client.push_folder(folder, model="kept", variant=T2V, tags=["latest"])
        ledger = Ledger(list(kept.files), moments)
        for _ in range(ROUNDS):
            ledger.confirmed.clear()
            working = [asyncio.create_task(ledger.work(process.address)) for _ in range(3)]
            await ledger.confirmed.wait()
            await ledger.has_deleted.wait()
            await asyncio.sleep(moments.uniform(0.0, 0.1))  # the random moment
            process.kill()
            for ended in await asyncio.gather(*working, return_exceptions=True):
                assert isinstance(ended, Exception), ended
                assert "UNAVAILABLE" in str(ended) or isinstance(ended, Unavailable), ended
            process.start()
            await process.until()
            assert not [path for path in (tmp_path / "registry").rglob(".*") if path.is_file()]
            async with ModelClient(process.address) as client:
                listed = {version.name: version for model in await client.list_models() for version in model.versions}
                assert listed[kept.name] == kept
                assert set(listed) >= ledger.published - ledger.deleting
                assert not set(listed) & ledger.deleted
                for name, version in listed.items():
                    assert len(version.files) == len(kept.files)
                    assert await client.get_version(name) == version
                assert not (await client.verify(kept.name)).damaged
        assert len(ledger.published) >= ROUNDS
    finally:
        process.kill()
