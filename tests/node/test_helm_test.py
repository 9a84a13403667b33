"""`helm test`, as an administrator runs it after an install."""

from __future__ import annotations

import pytest

from .release import Release

pytestmark = [pytest.mark.node, pytest.mark.timeout(1800)]


def test_helm_test_makes_a_video(release: Release, pool: str) -> None:
    release.apply(pool)
    assert "Phase:          Succeeded" in release.test()
