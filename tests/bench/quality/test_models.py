from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from wan22_bench.quality.models import Models, NotMeasured
from wan22_bench.quality.takes import T2V
from wan22_inference.engine.options import EngineOptions

CPU = torch.device("cpu")


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    models = Models(tmp_path, CPU)
    with pytest.raises(NotMeasured, match=r"^judge\.safetensors is not there$"):
        models.judge()
    with pytest.raises(NotMeasured, match=f"^{T2V} is not there$"):
        models.model(T2V, EngineOptions())
    with pytest.raises(NotMeasured, match=f"^{T2V} is not there$"):
        models.vae("vae21", T2V)


def test_a_model_of_other_sizes_is_not_measured(models_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / T2V
    shutil.copytree(models_folder / T2V, folder)
    config = folder / "transformer_2" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"num_layers": 7}))
    with pytest.raises(NotMeasured, match="num_layers is 7"):
        Models(tmp_path, CPU).model(T2V, EngineOptions())


def test_an_import_in_float8_is_loaded_in_float8(models_folder: Path, tmp_path: Path) -> None:
    models = Models(models_folder, CPU)
    assert not any(block.fp8 for block in models.model(T2V, EngineOptions()).transformers[1].blocks)
    eight = models.model(T2V, EngineOptions(), tmp_path)
    assert all(block.fp8 for transformer in eight.transformers for block in transformer.blocks)


def test_turbo_has_an_adapter_for_each_expert(models_folder: Path, tmp_path: Path) -> None:
    models = Models(models_folder, CPU)
    model = models.model(T2V, EngineOptions())
    turbo = models.turbo(model)
    assert [lora.expert for lora in turbo.loras] == ["HIGH", "LOW"]
    assert [lora.adapter for lora in turbo.loras] == list(turbo.adapters)
    assert all(adapter.experts[0].products for adapter in turbo.adapters.values())
    with pytest.raises(NotMeasured, match=r"^turbo/high is not there$"):
        Models(tmp_path, CPU).turbo(model)


def test_a_vae_is_found_alone_or_in_its_model(models_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "vae21").symlink_to(models_folder / T2V / "vae")
    alone, within = (Models(folder, CPU).vae("vae21", T2V) for folder in (tmp_path, models_folder))
    for ours, theirs in zip(alone.parameters(), within.parameters(), strict=True):
        assert torch.equal(ours, theirs)
