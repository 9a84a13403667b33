"""LoRA adapters from a file to a video, over real processes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from safetensors.torch import save_file

from wan22.client import Client, LoraOption
from wan22.errors import FailedPrecondition, InvalidRequest, NotFound, Reason
from wan22.mp4_boxes import video_digest
from wan22.v1.generation_pb2 import Generation, Lora
from wan22_testing.installation import Installation
from wan22_testing.lora_files import RandomLora, Style
from wan22_testing.tiny_models import shared_folder
from wan22_testing.wan22_command import Wan22Command

pytestmark = pytest.mark.asyncio(loop_scope="module")
T2V = "t2v-a14b-tiny"
Frames = Callable[..., Awaitable[str]]
PROMPT = "a red circle moves right"
SMALL: dict[str, Any] = {"variant": T2V, "prompt": PROMPT, "seed": 7, "num_frames": 5, "width": 64, "height": 64}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def installation(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Installation]:
    folder = tmp_path_factory.mktemp("loras")
    async with Installation(folder) as running:
        await running.push(T2V, shared_folder(T2V))
        await running.serve(T2V, "t1")
        await running.start_workers("t1")
        command = Wan22Command(folder)
        RandomLora(T2V, seed=1).write(folder / "style.safetensors", Style.KOHYA)
        RandomLora(T2V, seed=2).write(folder / "other.safetensors", Style.PEFT)
        (folder / "damaged.safetensors").write_bytes((folder / "style.safetensors").read_bytes())
        imports = {
            "style": ["style", "--max-strength", "1.2", "--approve"],
            "high": ["style", "--expert", "high", "--approve"],
            "low": ["other", "--expert", "low", "--alpha", "2", "--approve"],
            "fast-high": ["style", "--expert", "high", "--turbo", "--approve"],
            "fast-low": ["other", "--expert", "low", "--turbo", "--approve"],
            "new": ["other"],
        }
        for name, (file, *flags) in imports.items():
            arguments = [f"{file}.safetensors", name, "--base", T2V, "--registry", running.registry.address, *flags]
            result = await command("models", "import-lora", *arguments)
            assert result.exit_code == 0, result.err
        RandomLora("i2v-a14b-tiny").write(folder / "image.safetensors")
        arguments = ["image.safetensors", "image", "--base", "i2v-a14b-tiny", "--approve"]
        result = await command("models", "import-lora", *arguments, "--registry", running.registry.address)
        assert result.exit_code == 0, result.err
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def client(installation: Installation) -> AsyncIterator[Client]:
    async with installation.client() as opened:
        yield opened


@pytest.fixture
def frames_of(client: Client, tmp_path: Path) -> Callable[..., Awaitable[str]]:
    """Makes a video and returns the digest of its frames, which the recipe beside them does not change."""

    async def make(**changed: Any) -> str:
        path = tmp_path / "made.mp4"
        await client.generate(path, **{**SMALL, **changed})
        return video_digest(path)

    return make


async def test_an_adapter_changes_the_video_and_the_next_is_as_before(
    client: Client, tmp_path: Path, frames_of: Frames
) -> None:
    command = Wan22Command(tmp_path, WAN22_ENDPOINT=client.endpoint)
    before = await frames_of()
    size = ["--seed", "7", "--frames", "5", "--width", "64", "--height", "64"]
    result = await command("generate", PROMPT, "-o", "styled.mp4", "--lora", "style=0.8,high", "--json", *size)
    assert result.exit_code == 0, result.err
    (lora,) = result.json()["parameters"]["loras"]
    assert lora["adapter"].startswith("models/style/versions/sha256:")
    assert (lora["expert"], lora["strength"]) == ("HIGH", 0.8)
    styled = video_digest(tmp_path / "styled.mp4")
    assert styled != before
    assert await frames_of() == before
    assert await frames_of(loras=[{"adapter": "style:latest", "strength": 0.8, "expert": "HIGH"}]) == styled
    assert await frames_of(loras=[{"adapter": "style", "strength": 0.7, "expert": "HIGH"}]) != styled
    replayed = await command("replay", "styled.mp4")
    assert (replayed.exit_code, replayed.out) == (0, "The same bytes.\n"), replayed.err


async def test_each_expert_has_its_own_and_several_go_together(frames_of: Frames) -> None:
    high, low = {"adapter": "high"}, {"adapter": "low"}
    digests = [await frames_of(loras=loras) for loras in ([], [high], [low], [high, low], [low, high])]
    assert len(set(digests[:4])) == 4
    assert digests[4] == digests[3]


async def test_what_is_left_out_is_what_the_adapter_was_made_for(client: Client) -> None:
    made = await client.create(**SMALL, loras=[{"adapter": "high"}, {"adapter": "style"}])
    assert [(lora.expert, lora.strength) for lora in made.parameters.loras] == [(Lora.HIGH, 1.0), (Lora.BOTH, 1.0)]
    await client.delete(made.name, force=True)


@pytest.mark.parametrize(
    ("lora", "field", "what"),
    [
        (
            {"adapter": "style", "strength": 1.3},
            "strength",
            "takes a strength from 0 to 1.2, not 1.3; the nearest is 1.2",
        ),
        ({"adapter": "high", "expert": "LOW"}, "expert", "was made for the expert HIGH, not for LOW"),
        ({"adapter": "wan2.2-t2v-a14b-tiny"}, "adapter", "is a whole model, not an adapter"),
        ({"adapter": "image"}, "adapter", "was made for i2v-a14b-tiny, not for t2v-a14b-tiny"),
        ({"adapter": "Not A Name"}, "adapter", r"use MODEL\[:TAG\]"),
    ],
)
async def test_a_lora_that_the_adapter_was_not_made_for_is_refused(
    client: Client, lora: LoraOption, field: str, what: str
) -> None:
    with pytest.raises(InvalidRequest, match=what) as caught:
        await client.create(**SMALL, loras=[lora])
    (violation,) = caught.value.violations
    assert violation.field == f"parameters.loras[0].{field}"


async def test_an_adapter_of_another_variant_or_none_at_all_is_refused(client: Client) -> None:
    with pytest.raises(NotFound, match="nothing"):
        await client.create(**SMALL, loras=[{"adapter": "nothing"}])
    with pytest.raises(InvalidRequest, match="use at most 8"):
        await client.create(**SMALL, loras=[{"adapter": "style"}] * 9)
    with pytest.raises(InvalidRequest, match="the same as one before"):
        await client.create(**SMALL, loras=[{"adapter": "style"}, {"adapter": "style:latest", "expert": "LOW"}])


async def test_an_adapter_waits_for_its_approval(
    installation: Installation, client: Client, tmp_path: Path, frames_of: Frames
) -> None:
    with pytest.raises(FailedPrecondition, match="is not approved") as caught:
        await client.create(**SMALL, loras=[{"adapter": "new"}])
    assert caught.value.reason is Reason.ADAPTER_NOT_APPROVED
    result = await Wan22Command(tmp_path)("models", "approve", "new", "--registry", installation.registry.address)
    assert result.exit_code == 0, result.err
    assert await frames_of(loras=[{"adapter": "new"}]) != await frames_of()


async def test_turbo_takes_adapters_for_both_experts(client: Client) -> None:
    fast: list[LoraOption] = [{"adapter": "fast-high"}, {"adapter": "fast-low"}]
    with pytest.raises(FailedPrecondition, match="not the low-noise one"):
        await client.create(**SMALL, profile="TURBO", loras=fast[:1])
    with pytest.raises(FailedPrecondition, match="not distilled"):
        await client.create(**SMALL, profile="TURBO", loras=[{"adapter": "style"}])
    with pytest.raises(FailedPrecondition, match="Use TURBO, or leave it out"):
        await client.create(**SMALL, loras=fast)
    made = await client.wait((await client.create(**SMALL, profile="TURBO", loras=fast)).name)
    assert made.state == Generation.SUCCEEDED
    assert made.parameters.num_inference_steps == 4


async def test_a_file_that_does_not_fit_fails_its_generation_and_no_other(
    installation: Installation, client: Client, tmp_path: Path, frames_of: Frames
) -> None:
    file = RandomLora("i2v-a14b-tiny").tensors(Style.LIGHTX2V)
    save_file({name.replace("blocks.0.", "blocks.7."): t for name, t in file.items()}, tmp_path / "odd.safetensors")
    arguments = ["odd.safetensors", "odd", "--base", T2V, "--approve", "--registry", installation.registry.address]
    assert (await Wan22Command(tmp_path)("models", "import-lora", *arguments)).exit_code == 0
    done = await client.wait((await client.create(**SMALL, loras=[{"adapter": "odd"}])).name)
    assert done.state == Generation.FAILED
    assert "diffusion_model.blocks.7" in done.error.message
    assert "belongs to no layer of the variant" in done.error.message
    await frames_of()
