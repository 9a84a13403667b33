from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from wan22_operator.builders.pod import worker_name
from wan22_operator.replacing import replaced
from wan22_operator.revision import is_current, revision
from wan22_operator.workers import Seen, see

from .observing import SETTINGS, States, known, node, pod, pool_spec

OLD, NEW = "1-aaaaaaaaaaaa", "1-bbbbbbbbbbbb"


def workers(*states: Any, of: str = OLD) -> list[Seen]:
    pods = [pod(f"t2v-{number}", revision=of) for number in range(len(states))]
    told = [
        known(f"t2v-{number}", state, generation="generations/g" if state == States.BUSY else "")
        for number, state in enumerate(states)
    ]
    key = pool_spec().key
    assert told[0].name == worker_name(key, "t2v-0")
    return see(key, [], pods, {"n1": node()}, told, 0.0, told=True)


def names(found: list[str]) -> list[int]:
    return sorted(int(name.removeprefix("t2v-")) for name in found)


@pytest.mark.parametrize(
    ("trigger", "states", "most", "leaving"),
    [
        ("Manual", [States.IDLE, States.IDLE], 1, []),
        ("OnIdle", [States.IDLE, States.IDLE], 1, [0]),
        ("OnIdle", [States.IDLE, States.IDLE, States.IDLE], 2, [0, 1]),
        ("OnIdle", [States.BUSY, States.BUSY], 1, []),
        ("OnIdle", [States.BUSY, States.LOADING], 1, [1]),
        ("Rolling", [States.BUSY, States.BUSY], 1, [0]),
        ("Rolling", [States.BUSY, States.IDLE], 1, [1]),
        ("Rolling", [States.BUSY, States.BUSY, States.IDLE, States.IDLE], "50%", [2, 3]),
    ],
)
def test_outdated_workers_leave_as_update_says_and_no_more_than_may_be_missing(
    trigger: str, states: list[Any], most: Any, leaving: list[int]
) -> None:
    spec = pool_spec(update={"trigger": trigger, "maxUnavailable": most})
    assert names(replaced(spec, workers(*states), NEW, len(states), [])) == leaving


def test_one_that_is_missing_already_counts() -> None:
    spec = pool_spec(update={"trigger": "Rolling", "maxUnavailable": 1})
    assert replaced(spec, workers(States.IDLE, States.IDLE), NEW, 3, []) == []
    assert replaced(spec, workers(States.IDLE, States.IDLE), NEW, 2, ["t2v-0"]) == []


def test_workers_of_the_present_revision_or_of_another_rule_stay() -> None:  # cloudnative-pg issue 5950
    spec = pool_spec(update={"trigger": "Rolling"})
    assert replaced(spec, workers(States.IDLE, of=NEW), NEW, 1, []) == []
    assert replaced(spec, workers(States.IDLE, of="0-cccccccccccc"), NEW, 1, []) == []
    assert is_current("0-cccccccccccc", NEW)
    assert not is_current(OLD, NEW)


def test_what_a_user_changes_changes_the_revision_and_scaling_does_not() -> None:
    spec = pool_spec()
    first = revision(spec, SETTINGS.worker_image, "v")
    assert revision(spec, "other", "v") != first
    assert revision(spec, SETTINGS.worker_image, "v2") != first
    assert revision(replace(spec, gpus=2), SETTINGS.worker_image, "v") != first
    assert revision(replace(spec, vram_limit="40Gi"), SETTINGS.worker_image, "v") != first
    scaled = replace(spec, minimum=1, maximum=9, trigger="Manual", paused=True, default_for_variant=True)
    assert revision(scaled, SETTINGS.worker_image, "v") == first


def test_a_field_that_is_empty_is_as_one_that_is_not_given() -> None:
    """A newer CRD's default of a field, empty, restarts nothing."""
    spec = pool_spec()
    given = replace(spec, scheduling={}, resources={}, cache={})
    assert revision(given, "i", "v") == revision(spec, "i", "v")
