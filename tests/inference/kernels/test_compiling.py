"""The kernels as a Hopper card gets them: Triton compiles them without one."""

from __future__ import annotations

import os
import subprocess
import sys

COMPILE = """
import sys
from triton import compile
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from wan22_inference.engine.kernels import add_norm, attend_text, centre_heads, convolve
from wan22_inference.engine.kernels import norm_rotate, norm_silu, quantise_rows

def ptx(kernel, pointers, numbers, constants, warps=8):
    names = kernel.arg_names
    signature = dict.fromkeys(names, "constexpr") | pointers | numbers
    source = ASTSource(
        kernel,
        signature,
        constexprs={(names.index(name),): value for name, value in constants.items()},
        attrs={(names.index(name),): [["tt.divisibility", 16]] for name in pointers},
    )
    return compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": warps}).asm["ptx"]

row = {"DIM": 5120, "MAIN": 4096, "REST": 1024}
for out in ("*bf16", "*fp8e4nv"):
    pointers = {"x_ptr": "*bf16", "y_ptr": "*bf16", "out_ptr": out}
    pointers |= dict.fromkeys(("gate_ptr", "scale_ptr", "shift_ptr", "row_scale_ptr"), "*fp32")
    numbers = dict.fromkeys(("num_rows", "run_start", "run_length", "length"), "i32") | {"eps": "fp32"}
    flags = {"HAS_Y": True, "HAS_GATE": True, "QUANTISED": out == "*fp8e4nv", "ROWS": 4}
    sys.stdout.write(ptx(add_norm._add_norm, pointers, numbers, row | flags))
for out in ("*bf16", "*fp8e4nv"):
    pointers = {"x_ptr": "*bf16", "weight_ptr": "*bf16", "out_ptr": out}
    pointers |= dict.fromkeys(("cos_ptr", "sin_ptr", "mean_ptr", "scale_ptr"), "*fp32")
    numbers = {"length": "i32", "eps": "fp32"}
    float8 = out == "*fp8e4nv"
    constants = row | {"PAIRS_A_HEAD": 64, "ROTATED": True, "HAS_MEAN": float8, "QUANTISED": float8}
    sys.stdout.write(ptx(norm_rotate._norm_rotate, pointers, numbers, constants))
pointers = {"x_ptr": "*bf16", "out_ptr": "*fp32"}
sys.stdout.write(ptx(attend_text._row_factors, pointers, {"eps": "fp32"}, row))
pointers = dict.fromkeys(("x_ptr", "weight_ptr", "key_ptr", "value_ptr", "out_ptr"), "*bf16") | {"factor_ptr": "*fp32"}
numbers = dict.fromkeys(("length", "num_keys"), "i32") | dict.fromkeys(("scale", "bonus"), "fp32")
constants = {"HEADS": 40, "HEAD": 128, "QUERIES": attend_text.QUERIES, "KEYS": attend_text.KEYS}
sys.stdout.write(ptx(attend_text._attend_text, pointers, numbers, constants))
pointers = dict.fromkeys(("x_ptr", "weight_ptr", "bias_ptr", "out_ptr"), "*bf16")
numbers = dict.fromkeys(("height", "width"), "i32")
constants = {"CHANNELS": 96, "WIDE": 64, "NARROW": 32, "PIXELS": convolve.PIXELS}
sys.stdout.write(ptx(convolve._convolve, pointers, numbers, constants, convolve.WARPS))
pointers = {"x_ptr": "*bf16", "out_ptr": "*fp8e4nv", "mean_ptr": "*fp32", "scale_ptr": "*fp32"}
sys.stdout.write(ptx(centre_heads._centre_heads, pointers, {"length": "i32"}, row | {"HEAD": 128}))
pointers = {"x_ptr": "*bf16", "gamma_ptr": "*bf16", "out_ptr": "*bf16"}
numbers = {"num_rows": "i32", "eps": "fp32"}
for channels, width in ((96, 128), (384, 512)):
    constants = {"CHANNELS": channels, "WIDTH": width, "ROWS": 4096 // width}
    sys.stdout.write(ptx(norm_silu._norm_silu, pointers, numbers, constants))
pointers = {"x_ptr": "*bf16", "addend_ptr": "*fp32", "out_ptr": "*fp8e4nv", "scale_ptr": "*fp32"}
for constants in (
    {"HAS_ADDEND": False, "GELU": True, "DIM": 13824, "MAIN": 8192, "REST": 8192},
    {"HAS_ADDEND": True, "GELU": False} | row,
):
    sys.stdout.write(ptx(quantise_rows._quantise_rows, pointers, {"length": "i32"}, constants))
"""

COMPILE_MERGE = """
import sys
from triton import compile
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from wan22_inference.engine.kernels.merge_planes import BLOCK, _merge_planes

for word in (1, 2, 4):
    names = _merge_planes.arg_names
    source = ASTSource(
        _merge_planes,
        {"rows_ptr": "*i64", "WORD": "constexpr", "BLOCK": "constexpr"},
        constexprs={(names.index("WORD"),): word, (names.index("BLOCK"),): BLOCK},
    )
    sys.stdout.write(compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": 4}).asm["ptx"])
"""


def test_the_merge_of_planes_compiles_for_hopper_and_writes_whole_words() -> None:
    kernels = compiled(COMPILE_MERGE).split(".visible .entry ")[1:]
    assert [kernel.partition("(")[0] for kernel in kernels] == ["_merge_planes"] * 3
    for kernel, bits in zip(kernels, (8, 16, 32), strict=True):
        assert f"st.global.b{bits}" in kernel


def compiled(program: str) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    result = subprocess.run(
        [sys.executable, "-c", program], env=environment, check=False, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_the_kernels_compile_for_hopper_and_move_16_bytes_at_a_time() -> None:
    kernels = compiled(COMPILE).split(".visible .entry ")[1:]
    assert [kernel.partition("(")[0] for kernel in kernels] == [
        "_add_norm",
        "_add_norm",
        "_norm_rotate",
        "_norm_rotate",
        "_row_factors",
        "_attend_text",
        "_convolve",
        "_centre_heads",
        "_norm_silu",
        "_norm_silu",
        "_quantise_rows",
        "_quantise_rows",
    ]
    for kernel in kernels:
        assert ("cp.async.cg" if kernel.startswith("_convolve(") else "ld.global.v4.b32") in kernel
        assert "ld.global.b16" not in kernel
        assert "st.global.v4.b32" in kernel or kernel.startswith("_row_factors(")  # which writes one number a row
    assert all("wgmma" in kernel for kernel in kernels if kernel.startswith(("_attend_text(", "_convolve(")))
