"""Where the time of one forward goes: the device's kernels, by what they do, and what is between them."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

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


@dataclass(frozen=True)
class KernelTimes:
    """A forward's time on the device, in milliseconds."""

    by_kind: dict[str, float]
    """Of each kind, the longest first; kernels of no known kind appear by their own names."""
    whole: float
    """From the begin of the first kernel to the end of the last."""
    idle: float
    """Of these, with no kernel at work."""
    count: int
    """Kernels."""


def kernel_times(forward: Forward) -> KernelTimes:
    """Those of a warm forward."""
    forward()
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as trace:
        forward()
        torch.cuda.synchronize()
    return times_of(trace.events())


def times_of(events: Iterable[Any]) -> KernelTimes:
    """Those of a trace's events, of which one at least is a kernel."""
    spans = sorted(
        (event.time_range.start, event.time_range.end, event.name)
        for event in events
        if event.device_type.name == "CUDA"
    )
    by_kind: dict[str, float] = defaultdict(float)
    idle, busy_until = 0.0, spans[0][0]
    for start, end, name in spans:
        by_kind[_kind(name)] += (end - start) / 1000.0
        idle += max(0.0, start - busy_until) / 1000.0
        busy_until = max(busy_until, end)
    longest_first = dict(sorted(by_kind.items(), key=lambda item: -item[1]))
    return KernelTimes(longest_first, (busy_until - spans[0][0]) / 1000.0, idle, len(spans))


def _kind(name: str) -> str:
    return next((kind for kind, pattern in _KINDS if re.search(pattern, name, re.IGNORECASE)), name[:100])
