from __future__ import annotations

import asyncio
import os
import random
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.common.pack.files import bf16, float32, safetensors
from tests.registry import model_folder

from wan22.cache import Cache
from wan22.errors import DataLoss, FailedPrecondition, InvalidRequest, Reason, ResourceExhausted, Unavailable
from wan22.model_client import ModelClient
from wan22.model_export import Export
from wan22.model_packing import Packer
from wan22.pack.safetensors_header import read_header
from wan22.v1.model_pb2 import Version
from wan22.variants import VARIANTS
from wan22.weights_file import WeightsFile
from wan22_testing.service_process import ServiceProcess

from .model_service import Watched

T2V = "t2v-a14b-tiny"
FILE = "vae/diffusion_pytorch_model.safetensors"
WEIGHTS = safetensors({"w": ("BF16", bf16(6_000_000)), "noise": ("BF16", random.Random(3).randbytes(2_000_000))})
"""14 MB, 10 packed: three extents of weights and the header."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = model_folder.write(tmp_path / "model")
    (folder / FILE).write_bytes(WEIGHTS)
    return folder


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    return tmp_path / "packing"


async def push(client: ModelClient, folder: Path, scratch: Path, seen: list[int] | None = None) -> Version:
    def progress(done: int, total: int) -> None:
        if seen is not None:
            seen.append(done)

    packer = Packer(scratch, T2V)
    return await client.push_folder(folder, model="m", variant=T2V, tags=["latest"], packer=packer, progress=progress)


async def test_an_imported_model_is_stored_packed_and_exported_byte_for_byte(
    client: ModelClient, folder: Path, scratch: Path, tmp_path: Path
) -> None:
    (folder / "vae" / "again.safetensors").write_bytes(WEIGHTS)  # the same source twice
    version = await push(client, folder, scratch)
    assert [file.path for file in version.files] == [
        "model_index.json",
        "vae/again.safetensors.pack",
        "vae/config.json",
        FILE + ".pack",
    ]
    packed = version.files[3]
    assert packed.size_bytes < 0.75 * len(WEIGHTS)
    assert packed.digest == version.files[1].digest
    assert list(scratch.iterdir()) == []

    cached = await Cache(tmp_path / "cache").pull(version, client)
    written: list[str] = []
    await Export(tmp_path / "out").write(cached, written.append)
    cached.close()
    assert written == [file.path for file in version.files]
    out = sorted(path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.*"))
    assert out == ["model_index.json", "vae/again.safetensors", "vae/config.json", FILE]
    for path in out:
        assert (tmp_path / "out" / path).read_bytes() == (folder / path).read_bytes()


async def test_float32_weights_are_stored_in_the_precision_that_the_variant_runs_in(
    client: ModelClient, folder: Path, scratch: Path, tmp_path: Path
) -> None:
    weights = safetensors(
        {"proj_out.weight": ("F32", float32(50_000)), "scale_shift_table": ("F32", float32(1_000, 1))}
    )
    for component in ("transformer", "vae"):  # the same bytes, in a component that is cast and one that is not
        (folder / component).mkdir(exist_ok=True)
        (folder / component / "diffusion_pytorch_model.safetensors").write_bytes(weights)
    packer = Packer(scratch, "ti2v-5b")
    version = await client.push_folder(folder, model="m", variant="ti2v-5b", tags=["latest"], packer=packer)
    assert list(scratch.iterdir()) == []
    cached = await Cache(tmp_path / "cache").pull(version, client)
    await Export(tmp_path / "out").write(cached, lambda _: None)
    cached.close()
    assert (tmp_path / "out" / FILE).read_bytes() == weights
    with (tmp_path / "out" / FILE.replace("vae", "transformer")).open("rb") as file:
        header = read_header(file, os.fstat(file.fileno()).st_size)
    assert [(t.name, t.dtype) for t in header.tensors] == [("proj_out.weight", "BF16"), ("scale_shift_table", "F32")]


@pytest.mark.parametrize("variant", ["ti2v-5b", "ti2v-5b-tiny"])
async def test_fp8_keeps_the_matrices_of_linear_layers_in_8_bits_and_nothing_else(
    client: ModelClient, folder: Path, scratch: Path, tmp_path: Path, variant: str
) -> None:
    matrix = {
        name: torch.randn(16, 8)
        for name in ("blocks.1.ffn.2.weight", "blocks.2.attn1.to_q.weight", "blocks.3.ffn.2.weight", "proj_out.weight")
    }
    encoder = "encoder.block.0.layer.1.DenseReluDense.wi_0.weight"
    for component, tensors in {
        "transformer": matrix | {"blocks.2.attn1.to_q.bias": torch.randn(16)},
        "text_encoder": {encoder: torch.randn(16, 8), "shared.weight": torch.randn(16, 8)},
        "vae": {"blocks.0.attn1.to_q.weight": torch.randn(16, 8)},
    }.items():
        (folder / component).mkdir(exist_ok=True)
        save_file(tensors, folder / component / "diffusion_pytorch_model.safetensors")
    packers = [Packer(scratch, variant, "fp8"), Packer(scratch, variant)]
    versions = [
        await client.push_folder(folder, model="m", variant=variant, tags=[tag], packer=packer)
        for tag, packer in zip(("fp8", "bf16"), packers, strict=True)
    ]
    assert versions[0].name != versions[1].name
    cached = await Cache(tmp_path / "cache").pull(versions[0], client)
    await Export(tmp_path / "out").write(cached, lambda _: None)
    cached.close()
    other = torch.float32 if VARIANTS[variant].small else torch.bfloat16
    exact_too = {"blocks.1.ffn.2.weight": torch.float8_e4m3fn, "blocks.1.ffn.2.weight_scale": torch.float32}
    found = load_file(tmp_path / "out" / "transformer" / "diffusion_pytorch_model.safetensors")
    assert {name: tensor.dtype for name, tensor in found.items()} == {
        "blocks.1.ffn.2.weight": other,
        "blocks.2.attn1.to_q.bias": other,
        "blocks.2.attn1.to_q.weight": torch.float8_e4m3fn,
        "blocks.2.attn1.to_q.weight_scale": torch.float32,
        "blocks.3.ffn.2.weight": torch.float8_e4m3fn,
        "blocks.3.ffn.2.weight_scale": torch.float32,
        "proj_out.weight": other,
    } | (exact_too if VARIANTS[variant].exact_blocks == 0 else {})
    assert load_file(tmp_path / "out" / FILE)["blocks.0.attn1.to_q.weight"].dtype is torch.float32
    text = load_file(tmp_path / "out" / "text_encoder" / "diffusion_pytorch_model.safetensors")
    assert (text[encoder].dtype, text["shared.weight"].dtype) == (torch.float8_e4m3fn, other)


async def test_progress_grows_to_the_whole_source(client: ModelClient, folder: Path, scratch: Path) -> None:
    seen: list[int] = []
    await push(client, folder, scratch, seen)
    assert seen == sorted(seen)
    assert seen[-1] == sum(path.stat().st_size for path in folder.rglob("*.*") if path.name != "README.md")


async def test_an_import_that_broke_while_it_pushed_goes_on_with_what_is_packed(
    registry: Watched, client: ModelClient, folder: Path, scratch: Path
) -> None:
    registry.broken_pushes = 1  # of the only blob that takes more than two messages
    async with ModelClient(client.target, patience=0.0) as impatient:
        with pytest.raises(Unavailable, match="Broken by the test"):
            await push(impatient, folder, scratch)
    (left,) = scratch.iterdir()
    assert left.suffix == ".pack"
    registry.pushes.clear()
    packed_bytes: list[int] = []
    version = await push(client, folder, scratch, packed_bytes)
    half = len(WEIGHTS) // 2
    assert not [done for done in packed_bytes if 1_000 < done < half]  # no step of packing
    assert [offset > 0 for digest, offset in registry.pushes if digest == version.files[2].digest] == [True]
    assert not (await client.verify(version.name)).damaged
    assert list(scratch.iterdir()) == []


async def test_what_was_pushed_before_an_import_ended_is_not_packed_again(
    registry: Watched, client: ModelClient, folder: Path, scratch: Path
) -> None:
    registry.lost_blobs = 100  # publishing fails, and fails again
    with pytest.raises(FailedPrecondition):
        await push(client, folder, scratch)
    assert [path.suffix for path in scratch.iterdir()] == [".json"]
    registry.lost_blobs = 0
    version = await push(client, folder, scratch)  # what was lost is packed and pushed once more
    assert not (await client.verify(version.name)).damaged
    assert list(scratch.iterdir()) == []


@pytest.mark.parametrize("content", [b"\x80\x04.", WEIGHTS[:-1]], ids=["pickle", "cut"])
async def test_weights_that_are_none_are_refused_by_name(
    client: ModelClient, folder: Path, scratch: Path, content: bytes
) -> None:
    (folder / FILE).write_bytes(content)
    with pytest.raises(InvalidRequest, match=r"diffusion_pytorch_model\.safetensors cannot be packed: it") as caught:
        await push(client, folder, scratch)
    assert caught.value.reason is Reason.FORBIDDEN_FILE
    assert list(scratch.iterdir()) == []


async def test_two_imports_of_one_file_do_not_write_over_each_other(folder: Path, scratch: Path) -> None:
    source = WeightsFile.find(folder / FILE, FILE)
    async with Packer(scratch, T2V).packed(source, lambda _: None) as local:
        with pytest.raises(FailedPrecondition, match="Another import is packing") as caught:
            async with Packer(scratch, T2V).packed(source, lambda _: None):
                pass
        assert local.path.exists()
    assert caught.value.reason is Reason.BLOB_BUSY


async def test_a_cancelled_import_leaves_no_half_pack(client: ModelClient, folder: Path, scratch: Path) -> None:
    packing = asyncio.Event()
    loop = asyncio.get_running_loop()

    def progress(done: int, total: int) -> None:
        if done > 1000:
            loop.call_soon_threadsafe(packing.set)

    pushing = asyncio.create_task(
        client.push_folder(folder, model="m", variant=T2V, tags=[], packer=Packer(scratch, T2V), progress=progress)
    )
    await packing.wait()
    pushing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await pushing
    assert [path.name for path in scratch.iterdir() if path.suffix in {".new", ".lock"}] == []


async def test_an_export_into_a_folder_with_something_in_it_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").touch()
    with pytest.raises(InvalidRequest, match="out is not an empty folder"):
        Export(tmp_path / "out")
    with pytest.raises(InvalidRequest, match="mine is not an empty folder"):
        Export(tmp_path / "out" / "mine")


async def test_a_path_out_of_the_folder_is_not_written(
    client: ModelClient, folder: Path, scratch: Path, tmp_path: Path
) -> None:
    cached = await Cache(tmp_path / "cache").pull(await push(client, folder, scratch), client)
    for path in ("../evil.json", "/evil.json", "a/../../evil.json"):
        cached.files = {path: next(iter(cached.files.values()))}
        with pytest.raises(DataLoss, match="no path inside a folder"):
            await Export(tmp_path / "out").write(cached, lambda _: None)
    cached.close()


async def test_a_full_disk_is_said_and_leaves_nothing(
    client: ModelClient, folder: Path, small_disk: Path, registry: Watched
) -> None:
    with pytest.raises(ResourceExhausted, match=f"The disk of {small_disk} is full"):
        await push(client, folder, small_disk)
    assert [path.name for path in small_disk.iterdir() if path.name != "lost+found"] == []


async def test_kill_9_while_packing_frees_the_file_for_the_next_import(tmp_path: Path, folder: Path) -> None:
    import os
    import signal
    import subprocess
    import sys

    registry = ServiceProcess("wan22_registry", tmp_path / "log", root=tmp_path / "root")
    registry.start()
    await registry.until()
    scratch = tmp_path / "home" / "packing"
    command = [sys.executable, "-m", "wan22_cli", "models", "import", str(folder), "--variant", T2V]
    environment = {**os.environ, "WAN22_HOME": str(tmp_path / "home")}
    command += ["--registry", registry.address, "--model", "m"]
    try:
        process = await asyncio.to_thread(subprocess.Popen, command, env=environment, stdout=subprocess.DEVNULL)
        async with asyncio.timeout(60):
            while not list(scratch.glob("*.new")):  # noqa: ASYNC110  # another process makes it
                await asyncio.sleep(0.001)
        os.kill(process.pid, signal.SIGKILL)
        assert await asyncio.to_thread(process.wait) == -signal.SIGKILL
        async with ModelClient(registry.address) as client:
            version = await push(client, folder, scratch)
            assert not (await client.verify(version.name)).damaged
        assert list(scratch.iterdir()) == []
    finally:
        registry.kill()
