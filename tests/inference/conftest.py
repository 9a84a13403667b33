from __future__ import annotations

import functools
import hashlib
import io
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from wan22.model_client import ModelClient
from wan22.parameters import Parameters, RequestedParameters, resolve
from wan22.variants import VARIANTS, model_of
from wan22_inference.engine.model import Model
from wan22_inference.engine.model_load import load_model
from wan22_registry.registry import serve as serve_registry
from wan22_registry.settings import RegistrySettings
from wan22_testing.model_paths import model_paths
from wan22_testing.tiny_models import shared_folder

from .worker_kinds import RealWorker, SimulatedWorker, WorkerKind

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_model() -> Callable[[str], Model]:
    """A tiny variant's model, loaded once."""

    @functools.cache
    def load(variant: str) -> Model:
        paths = model_paths(shared_folder(variant))
        return load_model(VARIANTS[variant], paths, torch.device("cpu"), lambda _: None)

    return load


@pytest.fixture
def parameters() -> Callable[..., Parameters]:
    """Complete parameters of a variant: the given ones, a small size and a short video else."""

    def make(variant: str, **given: object) -> Parameters:
        small = {"prompt": "a cat on a beach", "width": 64, "height": 96, "num_frames": 5, "seed": 7}
        requested = RequestedParameters(**(small | given))  # type: ignore[arg-type]  # a test's own values
        return resolve(VARIANTS[variant], requested, image_size=None, draw_seed=lambda: 0)

    return make


@pytest.fixture
def picture() -> Callable[..., tuple[str, bytes]]:
    """A media name and PNG of smooth colours, another one for each seed."""

    def make(seed: int, width: int = 64, height: int = 96) -> tuple[str, bytes]:
        small = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC).save(buffer, "PNG")
        png = buffer.getvalue()
        return f"media/{hashlib.sha256(png).hexdigest()}", png

    return make


@dataclass(frozen=True)
class Registry:
    """A real registry, and the version of each tiny model pushed to it."""

    address: str
    root: Path
    version: Callable[[str], Awaitable[str]]


@pytest.fixture
async def registry(tmp_path: Path) -> AsyncIterator[Registry]:
    root = tmp_path / "registry"
    async with serve_registry(RegistrySettings(root=root, port=0, health_port=0)) as server:
        address = f"127.0.0.1:{server.port}"

        async def version(variant: str) -> str:
            async with ModelClient(address) as client:
                folder = shared_folder(variant)
                return (
                    await client.push_folder(folder, model=model_of(variant), variant=variant, tags=["latest"])
                ).name

        yield Registry(address, root, version)


@pytest.fixture(params=[RealWorker, SimulatedWorker], ids=["real", "simulated"])
def kind(request: pytest.FixtureRequest, registry: Registry) -> WorkerKind:
    """What is said of a worker holds for both kinds: a test that takes this one runs with each."""
    chosen: type[WorkerKind] = request.param
    return chosen(registry)


@pytest.fixture
def short(kind: WorkerKind, parameters: Callable[..., Parameters]) -> Callable[..., Parameters]:
    """Parameters of a text-to-video generation that takes a fraction of a second."""
    return functools.partial(parameters, kind.variant("t2v-a14b"))


@pytest.fixture
def long(short: Callable[..., Parameters]) -> Parameters:
    """Denoises for a second or more."""
    return short(width=128, height=128, num_frames=17, num_inference_steps=100)
