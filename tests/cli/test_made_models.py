from __future__ import annotations

from pathlib import Path

import pytest

from wan22_cli.local.made_models import Made, MadeModels

TINY = "t2v-a14b-tiny"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "made-models.json"


def test_what_was_made_of_other_sources_is_outdated_also_after_a_restart(path: Path) -> None:
    notes = MadeModels(path)
    assert not notes.kept
    notes.begin({})
    notes.note(TINY, Made("models/m/versions/sha256:1", "sources 1"))
    again = MadeModels(path)
    assert again.kept
    assert not again.is_outdated(TINY, "models/m/versions/sha256:1", "sources 1")
    assert again.is_outdated(TINY, "models/m/versions/sha256:1", "sources 2")


def test_what_a_person_imported_is_never_outdated(path: Path) -> None:
    notes = MadeModels(path)
    notes.begin({})
    assert not notes.is_outdated(TINY, "models/m/versions/sha256:1", "sources 1")
    notes.note(TINY, Made("models/m/versions/sha256:1", "sources 1"))
    assert not notes.is_outdated(TINY, "models/m/versions/sha256:2", "sources 2")


def test_what_is_there_before_the_first_note_was_made_by_another_release(path: Path) -> None:
    MadeModels(path).begin({TINY: "models/m/versions/sha256:1"})
    assert MadeModels(path).is_outdated(TINY, "models/m/versions/sha256:1", "sources 1")


def test_what_was_being_made_when_all_ended_is_made_again(path: Path) -> None:
    notes = MadeModels(path)
    notes.begin({})
    notes.note(TINY, Made())
    assert MadeModels(path).is_outdated(TINY, "models/m/versions/sha256:1", "sources 1")
