from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wan22_inference.engine.loading.planes import Merge, Parts, merge_by_kernel, merge_plainly


@settings(max_examples=15)
@given(
    word=st.sampled_from([1, 2, 4]),
    counts=st.lists(st.integers(1, 9_000), min_size=1, max_size=3),
    shifts=st.tuples(st.integers(0, 40), st.integers(0, 40), st.integers(0, 40)),
    seed=st.integers(0, 2**31),
)
def test_the_kernel_merges_what_the_plain_path_merges(
    word: int, counts: list[int], shifts: tuple[int, int, int], seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    stored = torch.randint(0, 256, (40_000 + shifts[0],), dtype=torch.uint8, generator=generator)
    top = torch.randint(0, 256, (30_000 + shifts[1],), dtype=torch.uint8, generator=generator)

    def merged(merge: Merge) -> list[torch.Tensor]:
        targets = [torch.zeros(word * count + shifts[2] + 5, dtype=torch.uint8) for count in counts]
        rows = [
            (0, 0, 9_000, count, target.data_ptr() + shifts[2]) for count, target in zip(counts, targets, strict=True)
        ]
        each = [Parts(word, np.array([row]), [target]) for row, target in zip(rows, targets, strict=True)]
        parts = Parts.joined(each).moved(shifts[0], shifts[1])
        merge(stored, top, parts, torch.from_numpy(parts.addresses(stored, top)))
        return targets

    for kernels, plain in zip(merged(merge_by_kernel), merged(merge_plainly), strict=True):
        assert torch.equal(kernels, plain)
        assert torch.count_nonzero(plain[: shifts[2]]) == 0
