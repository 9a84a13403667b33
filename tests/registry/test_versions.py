from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import grpc
import pytest

from wan22.channels import open_channel
from wan22.errors import DataLoss, FailedPrecondition, InvalidRequest, NotFound, Reason, Wan22Error
from wan22.model_client import ModelClient
from wan22.status import from_rpc_error
from wan22.v1 import model_pb2, model_pb2_grpc

from . import model_folder

T2V = "t2v-a14b-tiny"


async def push(client: ModelClient, folder: Path, *tags: str, model: str = "m") -> model_pb2.Version:
    return await client.push_folder(folder, model=model, variant=T2V, tags=tags)


def blob_path(root: Path, digest: str) -> Path:
    return root / "blobs" / "sha256" / digest.removeprefix("sha256:")


async def test_a_pushed_folder_is_a_version_with_its_files_and_comes_back_byte_for_byte(
    client: ModelClient, tmp_path: Path
) -> None:
    folder = model_folder.write(tmp_path / "m", b"x" * 3_000_000)
    version = await push(client, folder, "latest", "v1")
    assert [file.path for file in version.files] == [
        "model_index.json",
        "vae/config.json",
        "vae/diffusion_pytorch_model.safetensors",
    ]
    assert (version.variant, list(version.tags), version.pinned) == (T2V, ["latest", "v1"], False)
    assert version.size_bytes == sum(file.size_bytes for file in version.files)
    for file in version.files:
        data = b"".join([chunk async for chunk in client.read_blob(file.digest)])
        assert data == (folder / file.path).read_bytes()
        rest = b"".join([chunk async for chunk in client.read_blob(file.digest, 1)])
        assert rest == data[1:]


async def test_equal_content_is_one_version_and_equal_blobs_are_stored_once(
    client: ModelClient, root: Path, tmp_path: Path
) -> None:
    first = await push(client, model_folder.write(tmp_path / "a"), "one")
    second = await push(client, model_folder.write(tmp_path / "b"), "two")
    assert first.name == second.name
    assert list(second.tags) == ["one", "two"]
    await push(client, model_folder.write(tmp_path / "c"), "one", model="other")
    assert len(list((root / "blobs" / "sha256").iterdir())) == 5  # three files, one config, one manifest
    assert [model.name for model in await client.list_models()] == ["models/m", "models/other"]


async def test_a_tag_moves_and_references_resolve(client: ModelClient, tmp_path: Path) -> None:
    old = await push(client, model_folder.write(tmp_path / "a", b"old"), "latest")
    new = await push(client, model_folder.write(tmp_path / "b", b"new"), "latest", "v2")
    assert (await client.resolve("m")).name == new.name
    assert (await client.resolve("m:v2")).name == new.name
    digest = old.name.rpartition("/")[2]
    assert (await client.resolve(f"m@{digest}")).name == old.name
    assert list((await client.get_version(old.name)).tags) == []
    for reference, message in [
        ("m:v3", "the tags of m are: latest, v2"),
        (f"m:v2@{digest}", "the tags of m are"),
        ("n", "there are: m"),
    ]:
        with pytest.raises(NotFound, match=message):
            await client.resolve(reference)
    with pytest.raises(InvalidRequest):
        await client.resolve("M:!")


async def test_a_pinned_version_stays_and_a_deleted_one_takes_its_blobs_along(
    client: ModelClient, root: Path, tmp_path: Path
) -> None:
    kept = await push(client, model_folder.write(tmp_path / "a", b"kept"), "latest")
    gone = await push(client, model_folder.write(tmp_path / "b", b"gone"), "old")
    await client.pin(gone.name)
    with pytest.raises(FailedPrecondition) as caught:
        await client.delete(gone.name)
    assert caught.value.reason is Reason.VERSION_PINNED
    await client.unpin(gone.name)
    await client.delete(gone.name)
    with pytest.raises(NotFound):
        await client.get_version(gone.name)
    assert not blob_path(root, gone.files[2].digest).exists()
    assert blob_path(root, gone.files[0].digest).exists()  # shared with the other
    assert (await client.verify(kept.name)).bytes_verified == kept.size_bytes


async def test_versions_and_pins_survive_a_restart(root: Path, tmp_path: Path) -> None:
    from wan22_registry.registry import serve
    from wan22_registry.settings import RegistrySettings

    settings = RegistrySettings(root=root, port=0, health_port=0)
    async with serve(settings) as server, ModelClient(f"127.0.0.1:{server.port}") as client:
        before = await client.pin((await push(client, model_folder.write(tmp_path / "a"), "latest")).name)
    async with serve(settings) as server, ModelClient(f"127.0.0.1:{server.port}") as client:
        assert await client.resolve("m") == before


async def test_the_layout_is_an_oci_image_layout(client: ModelClient, root: Path, tmp_path: Path) -> None:
    version = await push(client, model_folder.write(tmp_path / "a"), "latest")
    assert json.loads((root / "oci-layout").read_text()) == {"imageLayoutVersion": "1.0.0"}
    (descriptor,) = json.loads((root / "index.json").read_text())["manifests"]
    assert version.name.endswith(descriptor["digest"])
    manifest_bytes = blob_path(root, descriptor["digest"]).read_bytes()
    assert len(manifest_bytes) == descriptor["size"]
    manifest = json.loads(manifest_bytes)
    assert manifest["artifactType"] == "application/vnd.wan22.model.v1+json"
    assert [layer["annotations"]["org.opencontainers.image.title"] for layer in manifest["layers"]] == [
        file.path for file in version.files
    ]


async def test_damage_is_found_and_named(client: ModelClient, root: Path, tmp_path: Path) -> None:
    version = await push(client, model_folder.write(tmp_path / "a"), "latest")
    assert not (await client.verify(version.name)).damaged
    path = blob_path(root, version.files[1].digest)
    path.write_bytes(b"{}" + b" " * (version.files[1].size_bytes - 2))
    blob_path(root, version.files[2].digest).unlink()
    first, second = (await client.verify(version.name)).damaged
    assert first.file.path == "vae/config.json"
    assert first.actual_digest.startswith("sha256:")
    assert (second.file.path, second.actual_digest) == ("vae/diffusion_pytorch_model.safetensors", "")
    blob_path(root, version.name.rpartition("/")[2]).write_bytes(b"{}")
    with pytest.raises(DataLoss, match="manifest"):
        await client.get_version(version.name)


async def publishing_error(client: ModelClient, *files: model_pb2.File, **fields: Any) -> Wan22Error:
    request = model_pb2.PublishVersionRequest(**{"model": "m", "variant": T2V, "files": files, **fields})
    async with open_channel(client.target) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await model_pb2_grpc.ModelServiceStub(channel).PublishVersion(request)
    return from_rpc_error(caught.value)


async def test_publishing_what_was_not_pushed_names_the_file(client: ModelClient) -> None:
    error = await publishing_error(client, model_pb2.File(path="a.json", digest="sha256:" + "a" * 64, size_bytes=1))
    assert isinstance(error, FailedPrecondition)
    assert error.reason is Reason.BLOB_MISSING
    assert "a.json" in error.message


async def test_what_cannot_be_published_is_refused_and_nothing_is_listed(client: ModelClient, tmp_path: Path) -> None:
    version = await push(client, model_folder.write(tmp_path / "m"), model="n")
    good, _, weights = version.files

    def named(path: str, like: model_pb2.File = good) -> model_pb2.File:
        return model_pb2.File(path=path, digest=like.digest, size_bytes=like.size_bytes)

    size = model_pb2.File(path="a.json", digest=good.digest, size_bytes=good.size_bytes + 1)
    odd = model_pb2.File(path="a.json", digest="sha256:../../index.json", size_bytes=1)
    cases: list[tuple[list[model_pb2.File], dict[str, Any], str]] = [
        ([], {}, "files is empty"),
        ([named("../a.json")], {}, "relative path"),
        ([named("model.pth")], {}, "only .safetensors, .safetensors.pack and .json"),
        ([named("a.json"), named("a.json")], {}, "a.json twice"),
        ([named("a.json"), named("a.json/b.json")], {}, "a.json and files below it"),
        ([named("a.safetensors"), named("a.safetensors.pack")], {}, "a.safetensors both plain and packed"),
        ([named("a.safetensors")], {}, "safetensors header"),
        ([named("w.json", weights)], {}, "not JSON"),
        ([size], {}, "declared with 3 bytes, its blob has 2"),
        ([odd], {}, "files.digest"),
        ([good], {"model": "Upper"}, "model is 'Upper'"),
        ([good], {"tags": ["a b"]}, "tags is 'a b'"),
        ([good], {"variant": "t2v-13b"}, "variant is 't2v-13b': use one of i2v-a14b"),
    ]
    for files, fields, words in cases:
        error = await publishing_error(client, *files, **fields)
        assert isinstance(error, InvalidRequest)
        assert words in error.message
    assert [model.name for model in await client.list_models()] == ["models/n"]


async def test_versions_are_listed_newest_first_also_within_a_second(client: ModelClient, tmp_path: Path) -> None:
    names = [(await push(client, model_folder.write(tmp_path / f"{n}", b"%d" % n), f"v{n}")).name for n in range(4)]
    await push(client, tmp_path / "1", "again")  # a tag more makes it no newer
    (model,) = await client.list_models()
    assert [version.name for version in model.versions] == names[::-1]


async def test_many_pushes_at_once_all_become_versions(client: ModelClient, tmp_path: Path) -> None:
    folders = [model_folder.write(tmp_path / f"m{n}", f"weights {n}".encode()) for n in range(8)]
    pushed = await asyncio.gather(*(push(client, folder, f"v{n}") for n, folder in enumerate(folders)))
    assert len({version.name for version in pushed}) == 8
    (model,) = await client.list_models()
    assert {tag for version in model.versions for tag in version.tags} == {f"v{n}" for n in range(8)}
