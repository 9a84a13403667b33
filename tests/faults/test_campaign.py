"""A short campaign of random faults on each kind of store; `wan22 bench faults` runs long ones."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from types import SimpleNamespace

import pytest

from wan22_testing.faults import campaign
from wan22_testing.faults.attacks import Attacks
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


async def test_a_process_that_ends_by_itself_is_found(tmp_path: Path) -> None:
    (tmp_path / "gateway.log").write_text("no space left")
    gateway = SimpleNamespace(running=True, log=tmp_path / "gateway.log")
    attacks = Attacks(SimpleNamespace(gateway=gateway, workers={}, disk=None, postgres=None), random.Random(1))  # type: ignore[arg-type]  # all that it looks at
    watching = asyncio.create_task(attacks.watch())
    await asyncio.sleep(0.5)
    assert not watching.done()
    gateway.running = False
    with pytest.raises(AssertionError, match="gateway ended by itself:\nno space left"):
        await asyncio.wait_for(watching, 10)
