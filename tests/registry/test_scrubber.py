from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from wan22.model_client import ModelClient
from wan22.v1 import model_pb2
from wan22_registry.blobs import BlobStore
from wan22_registry.metrics import RegistryMetrics
from wan22_registry.registry import serve
from wan22_registry.scrubber import Scrubber
from wan22_registry.settings import RegistrySettings
from wan22_registry.versions import Versions

from . import model_folder

WEIGHTS = "vae/diffusion_pytorch_model.safetensors"


async def publish(root: Path, *folders: Path) -> list[model_pb2.Version]:
    settings = RegistrySettings(root=root, port=0, health_port=0)
    async with serve(settings) as server, ModelClient(f"127.0.0.1:{server.port}") as client:
        return [
            await client.push_folder(folder, model=folder.name, variant="t2v-a14b-tiny", tags=["latest"])
            for folder in folders
        ]


def digest_of(version: model_pb2.Version, path: str) -> str:
    return next(file.digest for file in version.files if file.path == path)


def scrubber(root: Path, bytes_per_second: int = 1 << 40) -> tuple[Scrubber, BlobStore]:
    blobs = BlobStore(root)
    return Scrubber(blobs, Versions(root, blobs), bytes_per_second, RegistryMetrics(CollectorRegistry())), blobs


async def test_everything_is_read_once_and_found_whole(root: Path, tmp_path: Path) -> None:
    folders = [model_folder.write(tmp_path / name, b"w" * 3_000_000) for name in ("a", "b")]
    first, _ = await publish(root, *folders)
    found = await scrubber(root)[0].read_all()
    assert (found.bytes_read, found.damaged) == (first.size_bytes, [])  # both versions have the same blobs


async def test_damage_is_logged_by_name_and_the_blob_counts_as_missing(
    root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (version,) = await publish(root, model_folder.write(tmp_path / "m", b"w" * 2_000_000))
    weights, config = digest_of(version, WEIGHTS), digest_of(version, "vae/config.json")
    reader, blobs = scrubber(root)
    content = bytearray(blobs.path(weights).read_bytes())
    content[-1] ^= 1
    blobs.path(weights).write_bytes(content)
    blobs.path(config).unlink()
    found = await reader.read_all()
    assert sorted(found.damaged) == sorted([weights, config])
    assert blobs.size(weights) is None
    said = [record.message for record in caplog.records if record.levelno == logging.ERROR]
    assert len(said) == 2
    assert all(str(version.name) in text and "Import the model again" in text for text in said)
    assert any(WEIGHTS in text for text in said)


async def test_a_damaged_manifest_hides_no_other_version(root: Path, tmp_path: Path) -> None:
    broken, _ = await publish(root, *(model_folder.write(tmp_path / name, name.encode()) for name in ("a", "b")))
    reader, blobs = scrubber(root)
    manifest = broken.name.rpartition("/")[2]
    blobs.path(manifest).write_bytes(b"{}")
    found = await reader.read_all()
    assert found.damaged == [manifest]
    assert found.bytes_read > 0


async def test_reading_keeps_to_its_rate(root: Path, tmp_path: Path) -> None:
    (version,) = await publish(root, model_folder.write(tmp_path / "m", b"w" * 3_000_000))
    loop = asyncio.get_running_loop()
    start = loop.time()
    await scrubber(root, bytes_per_second=10_000_000)[0].read_all()
    assert loop.time() - start > 0.95 * version.size_bytes / 10_000_000


async def test_a_version_deleted_while_it_is_read_is_no_damage(root: Path, tmp_path: Path) -> None:
    (version,) = await publish(root, model_folder.write(tmp_path / "m", b"w" * 3_000_000))
    blobs = BlobStore(root)
    versions = Versions(root, blobs)
    reading = asyncio.create_task(Scrubber(blobs, versions, 5_000_000, RegistryMetrics(CollectorRegistry())).read_all())
    while not blobs._used[digest_of(version, WEIGHTS)]:  # noqa: ASYNC110  # it tells nobody which blob it reads
        await asyncio.sleep(0.005)
    versions.delete(version.name)
    assert (await reading).damaged == []
    assert not blobs.path(digest_of(version, WEIGHTS)).exists()
