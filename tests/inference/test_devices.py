from __future__ import annotations

import pytest
import torch

from wan22.errors import InvalidRequest, Reason
from wan22_inference.engine.devices import choose_device, compute_dtype


def test_auto_is_cuda_where_there_is_one() -> None:
    assert choose_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert choose_device("cpu") == torch.device("cpu")


def test_a_cpu_computes_in_float32_and_a_gpu_in_bfloat16() -> None:
    assert compute_dtype(torch.device("cpu")) is torch.float32
    assert compute_dtype(torch.device("cuda:0")) is torch.bfloat16


@pytest.mark.parametrize("name", ["gpu", "meta", "mps", ""])
def test_another_device_is_refused(name: str) -> None:
    with pytest.raises(InvalidRequest, match="use auto, cpu, cuda or cuda:N") as caught:
        choose_device(name)
    assert caught.value.reason is Reason.BAD_SETTING


def test_a_cuda_device_that_is_not_there_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="'cuda:99', but torch sees"):
        choose_device("cuda:99")


@pytest.mark.parametrize(("name", "index"), [("auto", 0), ("cuda", 0), ("cuda:0", 0), ("cuda:1", 1)])
def test_a_cuda_device_has_its_index_however_it_is_named(
    name: str, index: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    device = choose_device(name)
    assert (device.type, device.index) == ("cuda", index)
    assert str(device) == f"cuda:{index}"
