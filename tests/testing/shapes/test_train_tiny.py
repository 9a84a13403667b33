from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors import safe_open

from wan22.adapter import ADAPTER_FILE, WEIGHTS_FILE, Adapter
from wan22.model_folder import infer_variant
from wan22_testing.trained import make

ROOT = Path(__file__).parents[3]


def train(out: Path, *module: str) -> str:
    """What a stage says that has had a second and four clips."""
    command = [sys.executable, "-m", *module, "--out", str(out), "--seconds", "1", "--batch", "2", "--clips", "4"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_each_stage_leaves_what_the_next_one_and_the_engine_read(tmp_path: Path) -> None:
    assert "judge: done" in train(tmp_path, "tools.train_judge")
    for stage in ("text", "vae21", "vae22", "t2v-high", "t2v-low", "i2v-high", "i2v-low", "ti2v", "turbo", "turbo-low"):
        assert f"{stage}: done" in train(tmp_path, "tools.train_tiny", stage)
    assert train(tmp_path, "tools.train_tiny", "t2v-high").count("read right") == 2  # goes on with what it had
    for variant, experts in (("t2v-a14b-tiny", 2), ("i2v-a14b-tiny", 2), ("ti2v-5b-tiny", 1)):
        make(variant, tmp_path / "models" / variant, tmp_path)
        assert infer_variant(tmp_path / "models" / variant) == variant
        weights = sorted((tmp_path / "models" / variant).glob("transformer*/*.safetensors"))
        assert len(weights) == experts
        with safe_open(weights[0], "pt") as file:
            assert {file.get_slice(name).get_dtype() for name in file.keys()} == {"BF16"}  # noqa: SIM118  # no mapping
    for expert in ("high", "low"):
        folder = tmp_path / "turbo" / expert
        assert Adapter.from_json((folder / ADAPTER_FILE).read_bytes()).target_expert == expert
        assert (folder / WEIGHTS_FILE).stat().st_size > 0
    pieces = ["tools.compare_turbo", str(tmp_path), "--count", "2", "--side", "64", "--orders", "TTTT", "SSSS"]
    told = subprocess.run([sys.executable, "-m", *pieces], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert [line.split()[0] for line in told.splitlines()] == ["TTTT:", "SSSS:"]
    compare = [
        "tools.compare_trainings",
        "t2v-a14b-tiny",
        str(tmp_path),
        "--count",
        "2",
        "--side",
        "64",
        "--steps",
        "2",
        "--solvers",
        "unipc",
        "lcm",
    ]
    compared = subprocess.run([sys.executable, "-m", *compare], cwd=ROOT, capture_output=True, text=True, check=False)
    for solver in ("UNIPC", "LCM"):
        said = f"{solver}, 2 steps, shift 5, guidance 2 and 1.5: right with one object"
        assert said in compared.stdout, compared.stderr
    sizes = ["--layers", "1", "--width", "64", "--head", "16", "--feed-forward", "96", "--out", str(tmp_path)]
    anew = [sys.executable, "-m", "tools.new_expert", "t2v-a14b-tiny", "--low", *sizes]
    assert subprocess.run(anew, cwd=ROOT, check=False).returncode == 0
    assert "t2v-low: done" in train(tmp_path, "tools.train_tiny", "t2v-low")
    config = json.loads((tmp_path / "t2v-a14b-tiny" / "transformer_2" / "config.json").read_text())
    assert (config["num_layers"], config["num_attention_heads"], config["ffn_dim"]) == (1, 4, 96)
