"""The backends of attention on the device, against float32."""

from __future__ import annotations

import importlib
import importlib.util
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import Tensor

from wan22_inference.engine import attention8
from wan22_inference.engine.attention import Attend, choose, cudnn, flash_attention_3, sdpa
from wan22_inference.engine.heads8 import Heads8
from wan22_testing.forwards import error, seconds

needs_flash_attention_3 = pytest.mark.skipif(
    importlib.util.find_spec("fa3_fwd_interface") is None, reason="the package fa3-fwd is not installed"
)


def inputs(device: torch.device, queries: int, keys: int, heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """Bfloat16; queries and keys with the spread that norms with gains of 2 to 3 give them."""
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, length, heads, 128, generator=generator) for length in (queries, keys, keys))
    return (2.5 * q).to(device, torch.bfloat16), (2.5 * k).to(device, torch.bfloat16), v.to(device, torch.bfloat16)


@pytest.mark.gpu
@pytest.mark.parametrize("keys", [3000, 512])
@pytest.mark.parametrize("attend", [cudnn, pytest.param(flash_attention_3, marks=needs_flash_attention_3)])
def test_a_backend_is_as_exact_as_torchs_own(attend: Attend, keys: int, cuda: torch.device) -> None:
    q, k, v = inputs(cuda, 3000, keys, 4)
    reference = sdpa(q.float(), k.float(), v.float())
    assert error(attend(q, k, v), reference) <= 1.1 * error(sdpa(q, k, v), reference)


@pytest.mark.gpu
def test_the_fastest_backend_is_chosen(cuda: torch.device, figures: list[dict[str, Any]]) -> None:
    """At the length and heads of A14B's 832x480x81."""
    q, k, v = inputs(cuda, 32_760, 32_760, 40)
    choice = choose(cuda, torch.bfloat16, 128)
    took = seconds(lambda: choice.attend(q, k, v), cuda)
    plain = seconds(lambda: sdpa(q, k, v), cuda)
    what = f"attention by {choice.name} ({choice.reason}), 40 heads of 128, 32,760 tokens, bf16; peer: torch's choice"
    figures.append({"what": what, "unit": "s", "value": took, "peer": plain})
    assert took <= 1.02 * plain


@pytest.mark.gpu
@needs_flash_attention_3
def test_the_operator_has_the_bits_of_the_wheels_own_function(cuda: torch.device) -> None:
    own = importlib.import_module("fa3_fwd_interface").flash_attn_func
    q, k, v = inputs(cuda, 3000, 512, 4)
    assert torch.equal(flash_attention_3(q, k, v), own(q, k, v))
    scale = torch.tensor([[0.01, 0.02, 0.03, 0.04]], device=cuda)
    q8, k8, v8 = (Heads8((one / scale[:, None, :, None]).to(torch.float8_e4m3fn), scale) for one in (q, k, v))
    scales = {"q_descale": scale, "k_descale": scale, "v_descale": scale}
    assert torch.equal(attention8.flash_attention_3(q8, k8, v8), own(q8.data, k8.data, v8.data, **scales))


FIRST = """
import sys
import torch
from wan22_inference.engine.attention import flash_attention_3
q, k, v = torch.randn(3, 1, 192, 2, 128, device="cuda").bfloat16()
flash_attention_3(q, k, v).cpu()
assert not [name for name in sys.modules if name.startswith(("torch._dynamo", "sympy"))]
"""


@pytest.mark.gpu
@needs_flash_attention_3
def test_the_first_call_imports_no_compiler(cuda: torch.device) -> None:
    """A second of Python, during which no weights are loaded."""
    done = subprocess.run([sys.executable, "-c", FIRST], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
