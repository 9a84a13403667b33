"""Versions to a real OCI registry and back."""

from __future__ import annotations

import asyncio
import hashlib
import json
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.common.model_service import Watched, blob_path, serve
from tests.common.oci.registries import needs_programs
from tests.registry import model_folder

from wan22.errors import DataLoss, InvalidRequest, NotFound, PermissionDenied, Reason, Unavailable
from wan22.manifest import ARTIFACT_TYPE, CONFIG_TYPE, MANIFEST_TYPE, TITLE, canonical_json, config_of
from wan22.model_client import ModelClient
from wan22.oci import registry as registry_module
from wan22.oci.reference import OciReference
from wan22.oci.registry import OciRegistry
from wan22.oci.transfer import pull_version, push_version
from wan22.v1.model_pb2 import Version
from wan22_testing.cutting_proxy import CuttingProxy
from wan22_testing.oci_registry import OciRegistryProcess
from wan22_testing.service_process import free_port

pytestmark = needs_programs
T2V = "t2v-a14b-tiny"
WEIGHTS = bytes(range(256)) * 20_000
FILE = "vae/diffusion_pytorch_model.safetensors"


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[ModelClient]:
    async with serve(Watched(tmp_path / "registry")) as address, ModelClient(address) as opened:
        yield opened


@pytest.fixture
async def second(tmp_path: Path) -> AsyncIterator[ModelClient]:
    """Another model registry, empty."""
    async with serve(Watched(tmp_path / "second")) as address, ModelClient(address) as opened:
        yield opened


@pytest.fixture
async def remote(tmp_path: Path) -> AsyncIterator[OciRegistryProcess]:
    async with OciRegistryProcess(tmp_path / "remote") as process:
        yield process


@pytest.fixture
async def version(client: ModelClient, tmp_path: Path) -> Version:
    folder = model_folder.write(tmp_path / "model", WEIGHTS)
    return await client.push_folder(folder, model="m", variant=T2V, tags=["latest", "v1"])


def at(port: int, rest: str = "models/m:v1", **options: Any) -> OciRegistry:
    return OciRegistry(OciReference.parse(f"oci://127.0.0.1:{port}/{rest}"), **options)


def blobs(root: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (root / "blobs" / "sha256").iterdir()}


async def test_a_version_goes_and_comes_back_byte_for_byte(
    client: ModelClient, second: ModelClient, remote: OciRegistryProcess, version: Version, tmp_path: Path
) -> None:
    seen: list[tuple[int, int]] = []
    async with at(remote.port) as other:
        digest = await push_version(version, client, other, lambda done, total: seen.append((done, total)))
    assert version.name.endswith(digest)
    assert seen[-1] == (version.size_bytes, version.size_bytes)
    async with at(remote.port, f"models/m@{digest}") as other:
        back = await pull_version(other, second, model="m", tags=["back"])
    assert (back.name, back.variant, list(back.files)) == (version.name, version.variant, list(version.files))
    assert list(back.tags) == ["back"]
    assert blobs(tmp_path / "second") == blobs(tmp_path / "registry")
    assert not (await second.verify(back.name)).damaged


async def test_skopeo_finds_what_was_pushed_and_what_skopeo_pushes_is_found(
    client: ModelClient, second: ModelClient, remote: OciRegistryProcess, version: Version, tmp_path: Path
) -> None:
    async with at(remote.port) as other:
        await push_version(version, client, other)

    def skopeo(*arguments: str) -> bytes:
        command = ["skopeo", arguments[0], *arguments[1:]]
        return subprocess.run(command, check=True, capture_output=True, timeout=60).stdout

    inspected = skopeo("inspect", "--raw", "--tls-verify=false", f"docker://{remote.host}/models/m:v1")
    assert f"sha256:{hashlib.sha256(inspected).hexdigest()}" == version.name.rpartition("/")[2]
    layout = f"oci:{tmp_path / 'registry'}:m:latest"
    skopeo("copy", "--dest-tls-verify=false", layout, f"docker://{remote.host}/by/skopeo:v2")
    async with at(remote.port, "by/skopeo:v2") as other:
        back = await pull_version(other, second, model="m", tags=[])
    assert back.name == version.name
    assert blobs(tmp_path / "second") == blobs(tmp_path / "registry")


async def test_a_layout_that_skopeo_brings_back_is_served(
    client: ModelClient, remote: OciRegistryProcess, version: Version, tmp_path: Path
) -> None:
    async with at(remote.port) as other:
        await push_version(version, client, other)
    for tag in ("back", "again"):
        image, layout = f"docker://{remote.host}/models/m:v1", f"oci:{tmp_path / 'third'}:m:{tag}"
        command = ["skopeo", "copy", "--src-tls-verify=false", image, layout]
        await asyncio.to_thread(subprocess.run, command, check=True, capture_output=True, timeout=60)
    async with serve(Watched(tmp_path / "third")) as address, ModelClient(address) as third:
        found = [await third.resolve(f"m:{tag}") for tag in ("back", "again")]
        assert {back.name for back in found} == {version.name}
        assert list(found[0].tags) == ["again", "back"]
        (model,) = await third.list_models()
        assert len(model.versions) == 1
        assert not (await third.verify(version.name)).damaged
    assert blobs(tmp_path / "third") == blobs(tmp_path / "registry")
    index = json.loads((tmp_path / "third" / "index.json").read_text())
    assert all("dev.wan22.model" in descriptor["annotations"] for descriptor in index["manifests"])


async def test_what_is_there_is_not_sent_again(
    client: ModelClient, second: ModelClient, remote: OciRegistryProcess, version: Version, tmp_path: Path
) -> None:
    async with at(remote.port) as other:
        await push_version(version, client, other)
        await pull_version(other, second, model="m", tags=[])
        (tmp_path / "model" / "vae" / "config.json").write_text("{}")
        changed = await client.push_folder(tmp_path / "model", model="m", variant=T2V, tags=[])
        digest = next(file.digest for file in changed.files if file.path == FILE)
        blob_path(tmp_path / "registry", digest).unlink()  # whoever read it would fail
        await push_version(changed, client, other)
        blob = next((remote.folder / "store").rglob(digest.removeprefix("sha256:") + "/data"))
        blob.unlink()
        assert (await pull_version(other, second, model="m", tags=[])).name == changed.name


async def test_broken_transfers_go_on_where_they_stopped(
    client: ModelClient,
    second: ModelClient,
    remote: OciRegistryProcess,
    version: Version,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(registry_module, "UPLOAD_BYTES", 1 << 20)
    async with CuttingProxy(remote.port, [700_000, 2_500_000, 300]) as proxy:
        async with at(proxy.port) as other:
            await push_version(version, client, other)
        assert not proxy.cuts
    async with CuttingProxy(remote.port, [2_000_000, 400, 1_000_000]) as proxy:
        async with at(proxy.port) as other:
            await pull_version(other, second, model="m", tags=[])
        assert not proxy.cuts
    assert blobs(tmp_path / "second") == blobs(tmp_path / "registry")


async def test_a_damaged_blob_there_is_named(
    client: ModelClient, second: ModelClient, remote: OciRegistryProcess, version: Version
) -> None:
    async with at(remote.port) as other:
        await push_version(version, client, other)
        digest = next(file.digest for file in version.files if file.path == FILE)
        blob = next((remote.folder / "store").rglob(digest.removeprefix("sha256:") + "/data"))
        blob.write_bytes(b"\1" + blob.read_bytes()[1:])
        with pytest.raises(DataLoss, match=f"oci://.*/models/m:v1 has a damaged copy of {FILE}"):
            await pull_version(other, second, model="m", tags=[])
    assert await second.list_models() == []


async def test_a_damaged_blob_here_is_not_stored_there(
    client: ModelClient, remote: OciRegistryProcess, version: Version, tmp_path: Path
) -> None:
    digest = next(file.digest for file in version.files if file.path == FILE)
    blob = blob_path(tmp_path / "registry", digest)
    blob.write_bytes(b"\1" + blob.read_bytes()[1:])
    async with at(remote.port) as other:
        with pytest.raises(DataLoss, match=digest):
            await push_version(version, client, other)
        with pytest.raises(NotFound):
            await other.get_manifest()


async def test_a_blob_that_the_other_registry_finds_wrong_is_data_loss(remote: OciRegistryProcess) -> None:
    async def read(offset: int) -> AsyncIterator[bytes]:
        yield b"abc"

    async with at(remote.port) as other:
        with pytest.raises(DataLoss, match="DIGEST_INVALID"):
            await other.push_blob("sha256:" + "a" * 64, read, lambda _: None)  # type: ignore[arg-type]


async def test_what_is_no_model_is_refused(second: ModelClient, remote: OciRegistryProcess) -> None:
    config = config_of(T2V)
    digest = "sha256:" + hashlib.sha256(config).hexdigest()

    async def read(offset: int) -> AsyncIterator[bytes]:
        yield config

    layer: dict[str, Any] = {"mediaType": "application/json", "digest": digest, "size": len(config)}
    good: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "artifactType": ARTIFACT_TYPE,
        "config": {"mediaType": CONFIG_TYPE, "digest": digest, "size": len(config)},
        "layers": [{**layer, "annotations": {TITLE: "a.json"}}],
    }
    cases: list[tuple[dict[str, Any], str | None]] = [
        ({**good, "artifactType": "application/vnd.other"}, "it is 'application/vnd.other', not"),
        ({**good, "layers": [layer]}, "none of a model"),
        ({**good, "layers": [{**layer, "annotations": {TITLE: "../a.json"}}]}, "relative path of plain parts"),
        ({**good, "layers": [{**layer, "annotations": {TITLE: "a.pkl"}}]}, "none of a model"),
        ({**good, "layers": [{**good["layers"][0], "size": len(config) + 1}]}, None),
        ({**good, "annotations": {"more": "x"}}, "not written as a model registry writes it"),
    ]
    async with at(remote.port) as other:
        await other.push_blob(digest, read, lambda _: None)  # type: ignore[arg-type]
        for manifest, why in cases:
            await other.put_manifest(canonical_json(manifest))
            if why is None:
                with pytest.raises(DataLoss, match=r"damaged copy of a\.json"):
                    await pull_version(other, second, model="m", tags=[])
                continue
            with pytest.raises(InvalidRequest, match=why) as caught:
                await pull_version(other, second, model="m", tags=[])
            assert caught.value.reason is Reason.FORBIDDEN_FILE
        await other.put_manifest(json.dumps(good).encode())  # the same, written otherwise
        with pytest.raises(InvalidRequest, match="not written as"):
            await pull_version(other, second, model="m", tags=[])
        await other.put_manifest(canonical_json(good))
        assert [file.path for file in (await pull_version(other, second, model="m", tags=[])).files] == ["a.json"]


async def test_a_registry_that_asks_for_a_name_gets_the_stored_one(
    client: ModelClient, version: Version, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # bcrypt of "secret", as `htpasswd -nbB anna secret` writes it
    line = "anna:$2b$05$6rPz90HTTogiPHaOFYs8uunGaxfZbbTlGr/YvW1AvGnKUGyIXTH2O\n"
    (tmp_path / "htpasswd").write_text(line)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    async with OciRegistryProcess(tmp_path / "closed", tmp_path / "htpasswd") as remote:

        def log_in(auth: str) -> None:
            (tmp_path / "config.json").write_text(json.dumps({"auths": {remote.host: {"auth": auth}}}))

        async with at(remote.port) as other:
            with pytest.raises(PermissionDenied, match=f"docker login {remote.host}"):
                await push_version(version, client, other)
            log_in("YW5uYTp3cm9uZw==")  # anna:wrong
            with pytest.raises(PermissionDenied, match="answers 401"):
                await push_version(version, client, other)
            log_in("YW5uYTpzZWNyZXQ=")  # anna:secret
            await push_version(version, client, other)
        async with at(remote.port) as other:
            assert json.loads(await other.get_manifest())["artifactType"] == ARTIFACT_TYPE


async def test_a_registry_that_is_not_there_is_named(client: ModelClient, version: Version) -> None:
    port = free_port()
    async with at(port, patience=0.5) as other:
        with pytest.raises(Unavailable, match=f"127.0.0.1:{port} did not answer for 0.5 s"):
            await push_version(version, client, other)


async def test_a_tag_that_is_not_there_is_not_found(second: ModelClient, remote: OciRegistryProcess) -> None:
    async with at(remote.port, "no/such:tag") as other:
        with pytest.raises(NotFound, match=r"NAME_UNKNOWN|MANIFEST_UNKNOWN"):
            await pull_version(other, second, model="m", tags=[])
