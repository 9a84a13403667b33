"""Migrations of a store that is in use: one Job before the rollout, and code that goes back by one version."""

from __future__ import annotations

import asyncio
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psycopg

from wan22.client import ParameterOptions
from wan22_gateway.store.migrate import SCRIPTS, newest
from wan22_gateway.store.postgres import migrate_postgres
from wan22_testing.installation import Installation
from wan22_testing.postgres import PostgresServer
from wan22_testing.tiny_models import shared_folder

T2V = "t2v-a14b-tiny"
WORK: ParameterOptions = {"num_inference_steps": 2, "num_frames": 5}
CALLERS = 6
NOW = newest()
NEXT, AFTER = (f"{int(NOW) + ahead:04}" for ahead in (1, 2))
EXPAND = f"""
import sqlalchemy as sa
from alembic import op

revision, down_revision = "{NEXT}", "{NOW}"


def upgrade():
    op.add_column("generations", sa.Column("mood", sa.Text(), nullable=True))
    op.create_index("generations_by_mood", "generations", ["mood"])
"""
CONTRACT = f"""
from alembic import op

revision, down_revision = "{AFTER}", "{NEXT}"


def upgrade():
    op.drop_index("generations_by_mood", table_name="generations")
    op.drop_column("generations", "mood")
"""


async def job(url: str) -> tuple[int, str]:
    """What a Kubernetes Job runs."""
    command = [sys.executable, "-m", "wan22_gateway.migrate", "--store", url]
    process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
    _, said = await process.communicate()
    return process.returncode or 0, said.decode()


@asynccontextmanager
async def creating(installation: Installation) -> AsyncIterator[list[str]]:
    """Creates generations at all replicas all the time; every call must succeed."""
    made: list[str] = []
    stop = asyncio.Event()

    async def call(number: int) -> None:
        async with installation.client(number % len(installation.gateways)) as client:
            while not stop.is_set():
                made.append((await client.create(variant=T2V, prompt="a red circle", **WORK)).name)

    async with asyncio.TaskGroup() as callers:
        for number in range(CALLERS):
            callers.create_task(call(number))
        yield made
        count = len(made)
        while True:  # for calls that began after what was done meanwhile
            await asyncio.sleep(0.05)
            if len(made) >= count + 2 * CALLERS:
                break
        stop.set()


async def test_replicas_wait_for_the_job_and_serve_on_through_the_next_versions_migrations(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    url = postgres.url(postgres.create())
    installation = Installation(tmp_path, replicas=2, store=url, queue_limit=1_000_000)
    starting = asyncio.create_task(installation.__aenter__())
    for gateway in installation.gateways:
        await gateway.until_logged(f"lacks migrations to schema {NOW}")
    assert [code for code, _ in await asyncio.gather(job(url), job(url))] == [0, 0]
    await starting
    scripts = tmp_path / "scripts"
    shutil.copytree(SCRIPTS, scripts)
    try:
        await installation.push(T2V, shared_folder(T2V))
        await installation.serve(T2V, "w1")
        async with creating(installation) as made:
            (scripts / "versions" / f"{NEXT}_expand.py").write_text(EXPAND)
            await asyncio.to_thread(migrate_postgres, url, None, scripts)
        code, said = await job(url)  # of the version before: there is nothing left to do
        assert (code, f"The store has schema {NEXT}" in said) == (0, True)
        installation.gateways[1].kill()  # code N-1 is rolled back to: it starts on schema N
        installation.gateways[1].start()
        await installation.gateways[1].until()
        async with creating(installation) as more:
            (scripts / "versions" / f"{AFTER}_contract.py").write_text(CONTRACT)
            await asyncio.to_thread(migrate_postgres, url, None, scripts)
        made += more
        with psycopg.connect(url) as connection:
            found = connection.execute("SELECT id FROM generations").fetchall()
        assert sorted(f"generations/{row[0]}" for row in found) == sorted(made)
        installation.gateways[1].kill()
        installation.gateways[1].start()
        assert await asyncio.to_thread(installation.gateways[1].wait) == 1  # two versions ahead: not for us
        assert f"The store has schema {AFTER}" in installation.gateways[1].log.read_text()
        code, said = await job(url)
        assert code == 1
        assert f"serves {NOW} and the one after it: run the newer version" in said
    finally:
        await installation.__aexit__()


async def test_the_job_says_what_is_wrong_with_its_store(tmp_path: Path, postgres: PostgresServer) -> None:
    code, said = await job(str(tmp_path / "store"))
    assert code == 1
    assert "a folder is migrated when the gateway starts" in said
    code, said = await job(f"postgresql://wan22:secret@127.0.0.1:{postgres.port}/postgres")
    assert code == 2
    assert "--store-password-file" in said or "store_password_file" in said
    assert "secret" not in said
