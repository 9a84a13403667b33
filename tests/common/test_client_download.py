"""A download that is given up."""

from __future__ import annotations

import asyncio
import gc
import threading
from pathlib import Path
from typing import Any

import pytest

from wan22.client_download import PartialFile, download
from wan22.v1 import generation_pb2


async def test_one_that_is_given_up_while_its_file_is_being_made_leaves_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on, really = threading.Event(), threading.Event(), PartialFile.open

    def slow(self: PartialFile) -> None:
        begun.set()
        assert go_on.wait(30)
        really(self)

    monkeypatch.setattr(PartialFile, "open", slow)
    nobody: Any = None  # it is not asked
    asking = asyncio.create_task(download(nobody, nobody, "generations/1", generation_pb2.Video(), tmp_path / "a.mp4"))
    await asyncio.to_thread(begun.wait, 30)
    asking.cancel()
    await asyncio.sleep(0.05)
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert list(tmp_path.iterdir()) == []
    gc.collect()  # a file that was left open would warn now
