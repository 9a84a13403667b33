"""What a load takes of the host's memory, in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from wan22.pack.writer import pack_file

TENSORS, ITEMS = 16, 8 << 20
BOUND = 96 << 20
"""Bytes beside the tensors: some 33 a lane, of which two on two cores, and a little."""
PROGRAM = """
import json, re, sys
from pathlib import Path
import torch
from wan22_inference.engine.loading.loader import WeightLoader

def resident(field):
    return int(re.search(rf"{field}:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024

path, found = Path(sys.argv[1]), {}
Path("/proc/self/clear_refs").write_text("5")
before = resident("VmRSS")
with WeightLoader(lambda _: None, max_lanes=2) as loader:
    def place(name, shape):
        return found.setdefault(name, torch.empty(shape, dtype=torch.bfloat16))
    loader.load([(path.name, path)], torch.device("cpu"), place)
tensors = sum(tensor.nbytes for tensor in found.values())
print(json.dumps({"beyond": resident("VmHWM") - before - tensors, "tensors": tensors}))
"""


def test_a_load_takes_little_beside_the_tensors_however_large_the_file(tmp_path: Path) -> None:
    plain = tmp_path / "t.safetensors"
    generator = torch.Generator().manual_seed(0)
    save_file({f"{n}": torch.randn(ITEMS, generator=generator).to(torch.bfloat16) for n in range(TENSORS)}, plain)
    packed = tmp_path / "t.safetensors.pack"
    pack_file(plain, packed, lambda _: None)
    for path in (plain, packed):
        result = subprocess.run([sys.executable, "-c", PROGRAM, str(path)], check=False, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
        taken = json.loads(result.stdout)
        assert taken["tensors"] == 2 * ITEMS * TENSORS > 2 * BOUND
        assert taken["beyond"] < BOUND
