from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from wan22_gateway.store.database import Database
from wan22_gateway.store.sqlite import SqliteDatabase


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    opened = SqliteDatabase(tmp_path / "store")
    yield opened
    await opened.close()
