from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from wan22.adapter import ADAPTER_FILE, WEIGHTS_FILE, Adapter
from wan22.cache import Cache
from wan22.errors import FailedPrecondition, NotFound, Reason, Unavailable
from wan22.loras import Expert, Lora, RequestedLora
from wan22.model_client import ModelClient
from wan22.parameters import Parameters
from wan22_inference.adapters import Adapters
from wan22_inference.engine.model import Model
from wan22_testing.lora_files import RandomLora, Style

from .calls import attempt, error_of, serving, to_the_end, until, video_of
from .conftest import Registry

VARIANT = "t2v-a14b-tiny"
Make = Callable[..., Parameters]


async def push(registry: Registry, folder: Path, seed: int = 0, variant: str = VARIANT) -> Lora:
    """Imports an adapter of PEFT's, and returns it as a request uses it."""
    expert = "both" if variant.startswith("ti2v") else "high"
    facts = Adapter(base_variant=variant, target_expert=expert, min_strength=0, max_strength=1, alpha=2.0)  # type: ignore[arg-type]  # a text of two
    (folder / ADAPTER_FILE).write_bytes(facts.to_json())
    RandomLora(variant, seed=seed).write(folder / WEIGHTS_FILE, Style.PEFT)
    files = {name: folder / name for name in (ADAPTER_FILE, WEIGHTS_FILE)}
    async with ModelClient(registry.address) as client:
        version = await client.push(files, model=f"style-{seed}", variant=variant, tags=["latest"])
    return Lora(adapter=version.name, expert=Expert.BOTH, strength=1.0)


def names(loras: Sequence[Lora]) -> list[str]:
    return [lora.adapter for lora in loras]


async def test_an_adapter_is_pulled_once_and_kept(
    registry: Registry, tmp_path: Path, tiny_model: Callable[[str], Model]
) -> None:
    adapters = Adapters(registry.address, Cache(tmp_path / "cache"), 1 << 20)
    loras = [await push(registry, tmp_path, seed) for seed in (1, 2)]
    found = await adapters.get(loras, tiny_model(VARIANT))
    assert list(found) == names(loras)
    assert {product.scale for product in found[loras[0].adapter].experts[0].products.values()} == {0.5}
    shutil.rmtree(tmp_path / "cache" / "blobs")
    again = await adapters.get(loras, tiny_model(VARIANT))
    assert all(again[name] is found[name] for name in names(loras))
    assert await adapters.get([], tiny_model(VARIANT)) == {}


async def test_what_was_used_longest_ago_gives_way(
    registry: Registry, tmp_path: Path, tiny_model: Callable[[str], Model]
) -> None:
    first, second = [await push(registry, tmp_path, seed) for seed in (1, 2)]
    model = tiny_model(VARIANT)
    size = (await Adapters(registry.address, Cache(tmp_path / "cache"), 0).get([first], model))[first.adapter].bytes
    adapters = Adapters(registry.address, Cache(tmp_path / "cache"), size)
    kept = (await adapters.get([first], model))[first.adapter]
    assert (await adapters.get([first], model))[first.adapter] is kept
    assert len(await adapters.get([first, second], model)) == 2
    assert (await adapters.get([first], model))[first.adapter] is not kept


async def test_what_is_no_adapter_of_the_model_is_refused(
    registry: Registry, tmp_path: Path, tiny_model: Callable[[str], Model]
) -> None:
    adapters, model = Adapters(registry.address, Cache(tmp_path / "cache"), 0), tiny_model(VARIANT)
    other = await push(registry, tmp_path, variant="ti2v-5b-tiny")
    whole = Lora(adapter=await registry.version(VARIANT), expert=Expert.BOTH, strength=1.0)
    for lora, what in ((other, "an adapter of ti2v-5b-tiny"), (whole, "no adapter, but a whole model")):
        with pytest.raises(FailedPrecondition, match=what) as caught:
            await adapters.get([lora], model)
        assert caught.value.reason is Reason.ADAPTER_MISFIT
    absent = Lora(adapter="models/style/versions/sha256:" + "0" * 64, expert=Expert.BOTH, strength=1.0)
    with pytest.raises(NotFound):
        await adapters.get([absent], model)


async def test_a_registry_that_is_away_is_unavailable(tmp_path: Path, tiny_model: Callable[[str], Model]) -> None:
    adapters = Adapters("localhost:1", Cache(tmp_path / "cache"), 0)
    absent = Lora(adapter="models/style/versions/sha256:" + "0" * 64, expert=Expert.BOTH, strength=1.0)
    with pytest.raises(Unavailable):
        await adapters.get([absent], tiny_model(VARIANT))


async def test_a_worker_applies_adapters_and_leaves_no_trace_of_them(
    registry: Registry, tmp_path: Path, parameters: Make
) -> None:
    lora = await push(registry, tmp_path)
    plain, styled = parameters(VARIANT), parameters(VARIANT, loras=(RequestedLora(adapter=lora.adapter),))
    async with serving(tmp_path, registry.address, await registry.version(VARIANT)) as (service, caller):
        await until(service, lambda: service.worker.ready)
        videos = []
        for number, chosen in enumerate((plain, styled, plain, styled)):
            videos.append(video_of(await to_the_end(caller.generate(chosen, attempt(number)))))
            await caller.release(attempt(number))
        assert videos[0] == videos[2] != videos[1] == videos[3]
        absent = RequestedLora(adapter="models/style/versions/sha256:" + "0" * 64)
        error = await error_of(caller.generate(parameters(VARIANT, loras=(absent,)), attempt(9)))
        assert isinstance(error, NotFound)
        assert video_of(await to_the_end(caller.generate(plain, attempt(10)))) == videos[0]
