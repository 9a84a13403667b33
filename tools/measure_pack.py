"""Measures the pack on random bfloat16 weights of one transformer block: `python tools/measure_pack.py [--dim 5120]`.

The weights are those that the engine's own measurements use (`wan22_testing.random_weights`). Prints stored bytes over
source bytes, and the rates of packing and unpacking beside those of plain zstd over the same bytes in the same run.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
import zstandard
from safetensors.torch import save_file

from wan22.pack.ordered import in_order
from wan22.pack.reader import unpack_file
from wan22.pack.writer import pack_file
from wan22_testing.random_weights import random_transformer_weights


def seconds(work: Callable[[], object]) -> float:
    """How long it takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def block_shapes(dim: int) -> dict[str, torch.Size]:
    """The parameters of a block, under diffusers' names."""
    ffn = 13824 * dim // 5120
    shapes = {f"attn{n}.to_{part}.weight": torch.Size([dim, dim]) for n in (1, 2) for part in ("q", "k", "v", "out.0")}
    shapes |= {f"attn{n}.norm_{part}.weight": torch.Size([dim]) for n in (1, 2) for part in ("q", "k")}
    shapes |= {"ffn.net.0.proj.weight": torch.Size([ffn, dim]), "ffn.net.2.weight": torch.Size([dim, ffn])}
    return {f"blocks.0.{name}": shape for name, shape in shapes.items()}


def main() -> None:
    """Packs in a temporary folder, which gets some three times the block's size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dim", type=int, default=5120, help="width of the model; A14B has 5120")
    dim = parser.parse_args().dim
    with tempfile.TemporaryDirectory() as name:
        source, packed, back = (Path(name) / part for part in ("w.safetensors", "w.safetensors.pack", "back"))
        weights = random_transformer_weights(block_shapes(dim), dim=dim, seed=0, device=torch.device("cpu"))
        save_file(weights, source)
        del weights
        content = source.read_bytes()
        size = len(content)
        packing = seconds(lambda: pack_file(source, packed, lambda _: None))
        unpacking = seconds(lambda: unpack_file(packed, back, lambda _: None))
        if back.read_bytes() != content:
            raise SystemExit("What was unpacked is not what was packed.")

        def compress(start: int) -> int:
            return len(zstandard.ZstdCompressor(level=1).compress(content[start : start + (8 << 20)]))

        zstd_bytes: list[int] = []
        zstd = seconds(lambda: zstd_bytes.extend(in_order(compress, range(0, size, 8 << 20))))
        print(f"{size / 1e6:.0f} MB of bfloat16 weights, {len(os.sched_getaffinity(0))} cores")
        print(f"stored      {packed.stat().st_size / size:.4f} of the source")
        print(f"packing     {size / packing / 1e6:.0f} MB/s of the source")
        print(f"unpacking   {size / unpacking / 1e6:.0f} MB/s of the source")
        print(f"zstd -1     {size / zstd / 1e6:.0f} MB/s, {sum(zstd_bytes) / size:.4f} of the source")


if __name__ == "__main__":
    main()
