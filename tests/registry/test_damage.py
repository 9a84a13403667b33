from __future__ import annotations

from pathlib import Path

import pytest

from wan22.errors import DataLoss, NotFound, Reason
from wan22.model_client import ModelClient
from wan22.v1.model_pb2 import Version

from . import model_folder

T2V = "t2v-a14b-tiny"
FILE = "vae/diffusion_pytorch_model.safetensors"


def blob_path(root: Path, digest: str) -> Path:
    return root / "blobs" / "sha256" / digest.removeprefix("sha256:")


async def push(client: ModelClient, folder: Path, model: str = "m") -> Version:
    return await client.push_folder(folder, model=model, variant=T2V, tags=["latest"])


async def read(client: ModelClient, digest: str, offset: int = 0) -> bytes:
    return b"".join([data async for data in client.read_blob(digest, offset)])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return model_folder.write(tmp_path / "m", b"w" * 3_000_000)


@pytest.mark.parametrize("damage", [b"\1", b""], ids=["changed", "cut"])
async def test_a_read_of_a_damaged_blob_ends_in_data_loss_naming_both_digests(
    client: ModelClient, root: Path, folder: Path, damage: bytes
) -> None:
    version = await push(client, folder)
    wanted = version.files[2].digest
    path = blob_path(root, wanted)
    path.write_bytes(path.read_bytes()[:-1] + damage)
    with pytest.raises(DataLoss, match=wanted) as caught:
        await read(client, wanted)
    assert caught.value.reason is Reason.DIGEST_MISMATCH
    assert caught.value.metadata["expected"] == wanted
    assert caught.value.metadata["actual"] in caught.value.message
    assert caught.value.metadata["actual"] != wanted
    assert (
        await read(client, wanted, 2_000_000) == path.read_bytes()[2_000_000:]
    )  # its reader has the rest and compares


@pytest.mark.parametrize("found_by", ["read", "verify"])
async def test_importing_again_repairs_what_was_found_damaged(
    client: ModelClient, root: Path, folder: Path, found_by: str
) -> None:
    version = await push(client, folder)
    path = blob_path(root, version.files[2].digest)
    path.write_bytes(b"\1" + path.read_bytes()[1:])
    if found_by == "read":
        with pytest.raises(DataLoss):
            await read(client, version.files[2].digest)
    else:
        (damaged,) = (await client.verify(version.name)).damaged
        assert damaged.file.path == FILE
    assert await push(client, folder) == version
    assert await read(client, version.files[2].digest) == (folder / FILE).read_bytes()
    assert not (await client.verify(version.name)).damaged


async def test_a_damaged_manifest_hides_no_other_version_and_is_repaired_by_importing_again(
    client: ModelClient, root: Path, folder: Path, tmp_path: Path
) -> None:
    version = await push(client, folder)
    other = await push(client, model_folder.write(tmp_path / "other"), "n")
    path = blob_path(root, version.name.rpartition("/")[2])
    path.write_bytes(b" " * path.stat().st_size)
    with pytest.raises(DataLoss, match=f"manifest of {version.name} is damaged"):
        await client.get_version(version.name)
    first, second = await client.list_models()
    outline = Version(name=version.name, tags=["latest"], create_time=version.create_time)
    assert (list(first.versions), list(second.versions)) == ([outline], [other])
    assert await push(client, folder) == version
    assert await client.get_version(version.name) == version


async def test_a_damaged_config_is_data_loss(client: ModelClient, root: Path, folder: Path) -> None:
    version = await push(client, folder)
    known = {blob_path(root, file.digest) for file in version.files} | {
        blob_path(root, version.name.rpartition("/")[2])
    }
    (config,) = set((root / "blobs" / "sha256").iterdir()) - known
    config.unlink()
    with pytest.raises(DataLoss, match=f"config of {version.name} is gone"):
        await client.resolve("m")
    assert await push(client, folder) == version


async def test_a_version_with_a_damaged_manifest_can_be_deleted_and_takes_nobodys_blobs(
    client: ModelClient, root: Path, folder: Path, tmp_path: Path
) -> None:
    version = await push(client, folder)
    other = await push(client, model_folder.write(tmp_path / "other", b"o"), "n")
    gone = await push(client, model_folder.write(tmp_path / "gone", b"g"), "g")
    blob_path(root, version.name.rpartition("/")[2]).write_bytes(b"{}")
    await client.delete(gone.name)  # what the damaged version needs is unknown: no blob goes
    assert blob_path(root, gone.files[2].digest).exists()
    await client.delete(version.name)
    with pytest.raises(NotFound):
        await client.get_version(version.name)
    assert not (await client.verify(other.name)).damaged


async def test_verifying_counts_the_bytes_that_are_there(client: ModelClient, root: Path, folder: Path) -> None:
    version = await push(client, folder)
    assert (await client.verify(version.name)).bytes_verified == version.size_bytes
    blob_path(root, version.files[2].digest).unlink()
    answer = await client.verify(version.name)
    assert answer.bytes_verified == version.size_bytes - version.files[2].size_bytes
    assert [damaged.actual_digest for damaged in answer.damaged] == [""]
