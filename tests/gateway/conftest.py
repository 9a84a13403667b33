from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from wan22_gateway.store.database import Database


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    opened = Database(tmp_path / "store")
    yield opened
    await opened.close()
