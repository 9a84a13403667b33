"""Where the time of one forward goes: the device's kernels, by what they do."""

from __future__ import annotations

import re
from collections import defaultdict

import torch
from torch.profiler import ProfilerActivity, profile

from wan22_testing.forwards import Forward

_KINDS = (
    ("attention", r"flash|fmha|attention|sdpa|cutlass.*Fwd"),
    ("products", r"gemm|nvjet|cutlass|cublas|xmma|splitK|matmul"),
    ("convolutions", r"conv|implicit|wgrad|dgrad|fprop|cudnn"),
    ("norms and sums", r"_add_norm"),
    ("norm and rotation of queries and keys", r"_norm_rotate"),
    ("attention to the text, with its norm", r"_attend_text|_row_factors"),
    ("quantisation", r"_quantise_rows|_centre_heads"),
)


def kernel_times(forward: Forward) -> dict[str, float]:
    """Milliseconds of device time by kind; kernels of no known kind appear by their own names."""
    forward()
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as trace:
        forward()
        torch.cuda.synchronize()
    times: dict[str, float] = defaultdict(float)
    for event in trace.key_averages():
        if event.device_type.name == "CUDA":
            times[_kind(event.key)] += event.self_device_time_total / 1000.0
    return dict(sorted(times.items(), key=lambda item: -item[1]))


def _kind(name: str) -> str:
    return next((kind for kind, pattern in _KINDS if re.search(pattern, name, re.IGNORECASE)), name[:100])
