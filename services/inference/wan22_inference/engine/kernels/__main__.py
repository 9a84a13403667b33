"""`python -m wan22_inference.engine.kernels FOLDER` builds what launches the kernels where there is no compiler."""

from __future__ import annotations

import sys
from pathlib import Path

from wan22_inference.engine.kernels import launchers
from wan22_inference.engine.kernels.add_norm import _add_norm
from wan22_inference.engine.kernels.attend_text import _attend_text, _row_factors
from wan22_inference.engine.kernels.centre_heads import _centre_heads
from wan22_inference.engine.kernels.convolve import _convolve
from wan22_inference.engine.kernels.merge_planes import _merge_planes
from wan22_inference.engine.kernels.norm_rotate import _norm_rotate
from wan22_inference.engine.kernels.norm_silu import _norm_silu
from wan22_inference.engine.kernels.quantise_rows import _quantise_rows

KERNELS = (
    _add_norm,
    _attend_text,
    _centre_heads,
    _convolve,
    _merge_planes,
    _norm_rotate,
    _norm_silu,
    _quantise_rows,
    _row_factors,
)

if __name__ == "__main__":
    launchers.build(Path(sys.argv[1]), launchers.programs(KERNELS))
