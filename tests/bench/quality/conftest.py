from __future__ import annotations

from pathlib import Path

import pytest
import torch

from wan22.adapter import ADAPTER_FILE, WEIGHTS_FILE, Adapter
from wan22_bench.quality.takes import I2V, T2V, TI2V
from wan22_testing.lora_files import RandomLora, Style
from wan22_testing.shapes.judge import Judge
from wan22_testing.tiny_models import shared_folder


@pytest.fixture(scope="session")
def models_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everything that is measured, with random weights."""
    folder = tmp_path_factory.mktemp("models")
    for variant in (T2V, I2V, TI2V):
        (folder / variant).symlink_to(shared_folder(variant))
    torch.manual_seed(1)
    Judge().save(folder / "judge.safetensors")
    for seed, expert in enumerate(("high", "low")):
        place = folder / "turbo" / expert
        place.mkdir(parents=True)
        lora = RandomLora(T2V, seed=seed)
        lora.write(place / WEIGHTS_FILE, Style.PEFT)
        facts = Adapter(
            base_variant=T2V,
            target_expert="high" if expert == "high" else "low",
            min_strength=0,
            max_strength=1,
            turbo=True,
            alpha=lora.alpha,
        )
        (place / ADAPTER_FILE).write_bytes(facts.to_json())
    return folder
