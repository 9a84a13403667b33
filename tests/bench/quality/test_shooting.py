from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from wan22_bench.quality.command import Teller
from wan22_bench.quality.models import Models, NotMeasured
from wan22_bench.quality.shooting import Shooting, Taken
from wan22_bench.quality.studio import Sampling


@pytest.fixture
def shooting(models_folder: Path) -> Shooting:
    return Shooting(Models(models_folder, torch.device("cpu")), Sampling(steps=2, side=64), 1, Teller())


def test_what_there_is_not_has_its_reason(shooting: Shooting) -> None:
    reason = shooting.take("step-cache")
    assert isinstance(reason, NotMeasured)
    assert str(reason) == "the engine has no such option"


def test_the_first_frame_is_compared_where_one_is_given(shooting: Shooting) -> None:
    plain, given = shooting.take("t2v"), shooting.take("i2v")
    assert isinstance(plain, Taken)
    assert isinstance(given, Taken)
    assert plain.first_frames == []
    assert len(given.first_frames) == len(given.shots) == 1
    assert 0 < given.first_frames[0] < 4


def test_several_processes_come_to_the_same(shooting: Shooting) -> None:
    names = ["ti2v", "step-cache"]
    (alone, reason), (beside, same_reason) = (shooting.takes(names, processes) for processes in (1, 2))
    assert isinstance(alone, Taken)
    assert isinstance(beside, Taken)
    assert beside.answers == alone.answers
    assert np.array_equal(beside.shots[0].frames, alone.shots[0].frames)
    assert isinstance(same_reason, NotMeasured)
    assert str(same_reason) == str(reason)
