from __future__ import annotations

import asyncio
import json
import os
import pty
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.gateway import rows
from tests.gateway.scripted_worker import T2V, Place, ScriptedWorkerServicer, place_at, serve

from wan22.v1 import pool_pb2
from wan22.v1.inference_pb2 import Worker
from wan22_cli.top import duration, worker_rows
from wan22_testing.service_process import environment_of, free_port
from wan22_testing.wan22_command import Wan22Command

NOBODY = "127.0.0.1:9"


@pytest.fixture
async def idle(tmp_path: Path) -> AsyncIterator[Place]:
    """A gateway whose one worker has not come yet."""
    async with place_at(tmp_path, NOBODY) as place:
        yield place


async def test_once_shows_pools_with_what_waits_in_them(idle: Place, tmp_path: Path) -> None:
    wan22 = Wan22Command(tmp_path, WAN22_ENDPOINT=idle.client.endpoint)
    await idle.client.create(variant=T2V, prompt="x", count=2)
    shown = await wan22("top", "--once")
    assert shown.exit_code == 0, shown.err
    heading, row = (line.split() for line in shown.out.splitlines()[1:3])
    assert heading[:4] == ["POOL", "VARIANT", "QUEUED", "WORK"]
    assert row[:3] == [rows.POOL.removeprefix("pools/"), T2V, "2"]
    (pool,) = (await wan22("top", "--once", "--json")).json_lines()
    assert (pool["name"], sum(bucket["count"] for bucket in pool["demand"]["queued"])) == (rows.POOL, 2)


async def test_a_terminal_is_kept_up_to_date_until_ctrl_c(tmp_path: Path) -> None:
    async with serve(ScriptedWorkerServicer()) as address, place_at(tmp_path, address) as place:
        mine, theirs = pty.openpty()
        environment = environment_of(None) | {
            "WAN22_ENDPOINT": place.client.endpoint,
            "COLUMNS": "160",
            "TERM": "xterm",
        }
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "wan22_cli", "top", stdin=theirs, stdout=theirs, stderr=theirs, env=environment
        )
        os.close(theirs)
        try:
            await read_until(mine, b"w1")
            await place.client.create(variant=T2V, prompt="x", pool=rows.POOL)
            await read_until(mine, b"ASKED/MIN", b" 1 ")
            process.send_signal(signal.SIGINT)
            async with asyncio.timeout(60):
                assert await process.wait() == 130
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
            os.close(mine)


async def read_until(terminal: int, *wanted: bytes) -> None:
    """Reads what a program writes to its terminal until there was all of it."""
    seen = b""
    async with asyncio.timeout(60):
        while not all(text in seen for text in wanted):
            seen += await asyncio.to_thread(os.read, terminal, 1 << 16)


async def test_json_is_a_line_a_pool_at_each_change(idle: Place, tmp_path: Path) -> None:
    process = await Wan22Command(tmp_path, WAN22_ENDPOINT=idle.client.endpoint).start("top", "--json")
    assert process.stdout is not None
    async with asyncio.timeout(60):
        assert "queued" not in json.loads(await process.stdout.readline()).get("demand", {})
        await idle.client.create(variant=T2V, prompt="x")
        while "queued" not in json.loads(await process.stdout.readline())["demand"]:
            pass
    process.send_signal(signal.SIGINT)
    assert (await process.communicate(), process.returncode)[1] == 130


async def test_an_address_where_nobody_answers_ends_it(tmp_path: Path) -> None:
    ended = await Wan22Command(tmp_path, WAN22_ENDPOINT=f"127.0.0.1:{free_port()}")("top", "--once")
    assert (ended.exit_code, ended.out) == (3, "")
    assert "did not answer" in ended.err


def test_a_worker_says_what_it_does_and_how_far_it_is() -> None:
    pool = pool_pb2.Pool(name="pools/a.b")
    pool.workers.add(name="workers/1", state=Worker.LOADING, bytes_left=3_000_000_000, alive=True)
    busy = pool.workers.add(name="workers/2", state=Worker.BUSY, alive=True, generation="generations/g")
    busy.gpu.utilization = 0.93
    busy.drain_expire_time.FromSeconds(1)
    pool.demand.running.add(worker="workers/2", predicted_seconds=190, elapsed_seconds=42)
    pool.workers.add(name="workers/0", state=Worker.BROKEN, error="[bold] is no tag", alive=True)
    pool.workers.add(name="workers/3", state=Worker.IDLE)
    assert list(worker_rows(pool)) == [
        ["0", "a.b", "broken: [bold] is no tag", "-", "-", "-", "-"],
        ["1", "a.b", "loading, 3 GB to go", "-", "-", "-", "-"],
        ["2", "a.b", "busy, drained", "93%", "g", "42 s of 3:10 min", "-"],
        ["3", "a.b", "silent", "-", "-", "-", "-"],
    ]


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (59.4, "59 s"), (59.6, "1:00 min"), (3599, "59:59 min"), (7800, "2:10 h")]
)
def test_durations_are_for_people(seconds: float, text: str) -> None:
    assert duration(seconds) == text
