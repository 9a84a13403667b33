from __future__ import annotations

from pathlib import Path

import pytest
from tests.common.pack import files

from wan22.model_client import ModelClient
from wan22.model_packing import Packer
from wan22_registry.registry import serve
from wan22_registry.settings import RegistrySettings
from wan22_testing.service_process import free_port

from . import model_folder
from .scraping import scrape

T2V = "t2v-a14b-tiny"


async def test_metrics_tell_bytes_and_ratio_by_version_and_what_was_done(
    root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    port = free_port()
    folder = model_folder.write(tmp_path / "m")
    weights = files.safetensors({"w": ("BF16", files.bf16(500_000))})
    (folder / "vae" / "diffusion_pytorch_model.safetensors").write_bytes(weights)
    plain = sum(path.stat().st_size for path in folder.rglob("*") if path.suffix in {".json", ".safetensors"})
    settings = RegistrySettings(root=root, port=0, health_port=0, http_port=port, quota_bytes=10_000_000)
    async with serve(settings) as server, ModelClient(f"127.0.0.1:{server.port}") as client:
        packer = Packer(tmp_path / "packing", T2V)
        version = await client.push_folder(folder, model="m", variant=T2V, tags=["latest"], packer=packer)
        other = await client.push_folder(folder, model="n", variant=T2V, tags=["latest"])
        digest = version.name.rpartition("/")[2]
        (pack,) = [file for file in version.files if file.path.endswith(".pack")]
        async for _ in client.read_blob(pack.digest):
            pass
        found = await scrape(port, "wan22_registry_")
        assert found["version_stored_bytes", "m", digest] == version.size_bytes
        assert found["version_source_bytes", "m", digest] == plain
        assert found["version_ratio", "m", digest] == version.size_bytes / plain < 0.8
        assert found["version_ratio", "n", other.name.rpartition("/")[2]] == 1.0
        assert found["versions",] == 2
        assert found["blob_bytes",] == sum(path.stat().st_size for path in (root / "blobs" / "sha256").iterdir())
        assert found["pushed_bytes_total",] == version.size_bytes + len(weights)
        assert found["read_bytes_total",] == pack.size_bytes
        assert found["lookups_total", "present"] >= 2  # the two JSON files are stored once
        assert (found["part_bytes",], found["damaged_blobs",], found["quota_bytes",]) == (0, 0, 10_000_000)
        assert found["collected_blobs_total",] == 0

        blob = root / "blobs" / "sha256" / pack.digest.removeprefix("sha256:")
        blob.write_bytes(b"\0" * pack.size_bytes)
        assert (await client.verify(version.name)).damaged
        await client.delete(other.name)
        found = await scrape(port, "wan22_registry_")
        assert (found["damaged_blobs",], found["versions",], found["collected_blobs_total",]) == (1, 1, 2)
        assert ("version_ratio", "n", other.name.rpartition("/")[2]) not in found


async def test_a_version_that_cannot_be_read_has_no_metrics_and_hides_no_other(
    root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    port = free_port()
    settings = RegistrySettings(root=root, port=0, health_port=0, http_port=port)
    async with serve(settings) as server, ModelClient(f"127.0.0.1:{server.port}") as client:
        for model in ("m", "n"):
            folder = model_folder.write(tmp_path / model, model.encode())
            await client.push_folder(folder, model=model, variant=T2V, tags=[])
        broken = (await client.list_models())[0].versions[0].name
        (root / "blobs" / "sha256" / broken.rpartition(":")[2]).write_bytes(b"{}")
        found = await scrape(port, "wan22_registry_")
    assert found["versions",] == 2
    assert {labels[1] for labels in found if labels[0] == "version_ratio"} == {"n"}
    assert f"No metrics of {broken}" in caplog.text
