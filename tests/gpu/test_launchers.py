"""The kernels on a card where there is no C compiler: launched by programs that were built beforehand."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.gpu
RUN = """
import shutil
import sys
from pathlib import Path
import torch
from wan22_inference.engine.kernels import launchers
from wan22_inference.engine.kernels.add_norm import add_norm
from wan22_inference.engine.kernels.quantise_rows import quantise_rows

assert shutil.which("gcc") is shutil.which("clang") is None
launchers.FOLDER = Path(sys.argv[1])
launchers.use()
x = torch.randn(2, 7, 128, device="cuda", dtype=torch.bfloat16)
rows = quantise_rows(x, None, gelu=False)
assert (rows.float() - x.float()).abs().max() / x.abs().max() < 0.07
one, none = torch.ones(1, 128, device="cuda"), torch.zeros(1, 128, device="cuda")
normed = add_norm(x, None, None, one, none, (7,), 1e-6, fp8=False)
expected = torch.nn.functional.layer_norm(x.float(), (128,), eps=1e-6)
assert (normed.float() - expected).abs().max() < 0.04
print("launched")
"""


@pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc, which builds the programs, is not installed")
def test_kernels_run_where_there_is_no_compiler(tmp_path: Path) -> None:
    built = tmp_path / "launchers"
    subprocess.run([sys.executable, "-m", "wan22_inference.engine.kernels", str(built)], check=True)
    bare = {name: value for name, value in os.environ.items() if name not in {"CC", "TRITON_INTERPRET"}}
    bare |= {"PATH": str(tmp_path), "TRITON_CACHE_DIR": str(tmp_path / "triton")}
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(built)], env=bare, check=False, capture_output=True, text=True
    )
    assert done.stdout == "launched\n", done.stderr
