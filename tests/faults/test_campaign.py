"""A short campaign of random faults on each kind of store; `wan22 bench faults` runs long ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from wan22_testing.faults import campaign
from wan22_testing.postgres import programs


@pytest.mark.timeout(600)
@pytest.mark.parametrize("store", ["sqlite", pytest.param("postgres", marks=pytest.mark.long)])
async def test_nothing_that_was_accepted_is_lost_doubled_or_spoilt(tmp_path: Path, store: str) -> None:
    if store == "postgres" and programs() is None:
        pytest.skip("PostgreSQL is not installed")
    found = await campaign.run(tmp_path, events=6, seed=5, on_postgres=store == "postgres", seconds=15)
    assert found.verdict.faults == []
    assert found.accepted == found.verdict.states.total() > 0
    assert 0 < found.events <= 6
