from __future__ import annotations

from pathlib import Path

import pytest

from wan22.adapter import Adapter
from wan22.errors import FailedPrecondition, InvalidRequest, NotFound
from wan22.model_client import ModelClient
from wan22.v1 import model_pb2
from wan22_registry.registry import serve
from wan22_registry.settings import RegistrySettings

from . import model_folder

ADAPTER = Adapter(base_variant="t2v-a14b-tiny", target_expert="high", min_strength=0, max_strength=1.5)


async def push(
    client: ModelClient, folder: Path, adapter: bytes, *others: str, variant: str = "t2v-a14b-tiny"
) -> model_pb2.Version:
    folder.mkdir(exist_ok=True)
    (folder / "adapter.json").write_bytes(adapter)
    files = {"adapter.json": folder / "adapter.json"}
    for other in others:
        (folder / other).write_bytes(model_folder.tensor(b"lora"))
        files[other] = folder / other
    return await client.push(files, model="style", variant=variant, tags=["latest"])


async def test_an_adapter_shows_what_it_is_for_and_is_not_approved(client: ModelClient, tmp_path: Path) -> None:
    version = await push(client, tmp_path / "a", ADAPTER.to_json(), "lora.safetensors")
    assert version.variant == "t2v-a14b-tiny"
    assert version.adapter == model_pb2.Adapter(target_expert=model_pb2.Adapter.HIGH, max_strength=1.5)
    assert (await client.list_models())[0].versions[0].adapter == version.adapter


async def test_approval_changes_no_version_and_outlives_the_process(root: Path, tmp_path: Path) -> None:
    settings = RegistrySettings(root=root, port=0, health_port=0)
    async with serve(settings) as server, ModelClient(f"127.0.0.1:{server.port}") as client:
        before = await push(client, tmp_path / "a", ADAPTER.to_json(), "lora.safetensors")
        after = await client.approve_adapter(before.name)
        assert (after.name, after.files) == (before.name, before.files)
        assert after.adapter.approved
        await client.pin(before.name)
        await push(client, tmp_path / "a", ADAPTER.to_json(), "lora.safetensors")  # publishing again ends no approval
    async with serve(settings) as server, ModelClient(f"127.0.0.1:{server.port}") as client:
        assert (await client.resolve("style")).adapter.approved
        assert not (await client.unapprove_adapter(before.name)).adapter.approved
        assert not (await client.resolve("style")).adapter.approved
        assert (await client.resolve("style")).pinned


async def test_a_whole_model_is_not_approved(client: ModelClient, tmp_path: Path) -> None:
    version = await client.push_folder(
        model_folder.write(tmp_path / "m"), model="m", variant="t2v-a14b-tiny", tags=["latest"]
    )
    assert not version.HasField("adapter")
    with pytest.raises(FailedPrecondition, match="is a whole model: only adapters are approved"):
        await client.approve_adapter(version.name)
    with pytest.raises(NotFound):
        await client.unapprove_adapter(version.name.replace("models/m/", "models/n/"))


@pytest.mark.parametrize(
    ("content", "others", "variant", "why"),
    [
        (ADAPTER.to_json(), [], "t2v-a14b-tiny", "has the files adapter.json and lora.safetensors, this one adapter"),
        (ADAPTER.to_json(), ["lora.safetensors", "more.safetensors"], "t2v-a14b-tiny", "this one adapter.json, lora"),
        (ADAPTER.to_json(), ["lora.safetensors"], "t2v-a14b", "adapter.json says t2v-a14b-tiny"),
        (b"{}", ["lora.safetensors"], "t2v-a14b-tiny", "adapter.json is refused: it lacks base_variant"),
    ],
)
async def test_what_is_no_adapter_is_not_published(
    client: ModelClient, tmp_path: Path, content: bytes, others: list[str], variant: str, why: str
) -> None:
    with pytest.raises(InvalidRequest, match=why):
        await push(client, tmp_path / "a", content, *others, variant=variant)
    assert not await client.list_models()
