from __future__ import annotations

import gc
import os
import random
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, settings

from wan22.errors import FailedPrecondition
from wan22_testing import previous_release
from wan22_testing.postgres import PostgresServer, programs
from wan22_testing.s3_server import S3Server

# How long an example takes says something of the machine alone; examples of one test share its servers on purpose.
settings.register_profile(
    "wan22", deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
settings.load_profile("wan22")

if not Path("/dev/nvidiactl").exists():
    # Triton's kernels run on the CPU, in its own interpreter; it looks once, when torch first imports it
    os.environ.setdefault("TRITON_INTERPRET", "1")


@pytest.fixture(autouse=True, scope="module")
def leftovers() -> Iterator[None]:
    """Has a socket that a module leaves open told at its end or the next one's, not when the collector comes by."""
    yield
    gc.collect()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)], check=False)
    if mounted.returncode:
        pytest.skip("a file system of 4 MB cannot be mounted here: that takes root")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
def moments() -> random.Random:
    """Where faults fall. The seed is printed, which a failing test shows; KILL_SEED repeats it."""
    seed = int(os.environ.get("KILL_SEED") or random.randrange(1 << 32))
    print(f"KILL_SEED={seed}")  # noqa: T201  # pytest keeps it for a failure's report
    return random.Random(seed)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def s3_server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[S3Server]:
    """One for all tests of a session; a test that kills one starts its own."""
    server = S3Server(tmp_path_factory.mktemp("s3"))
    server.start()
    await server.until_ready()
    yield server
    server.kill()


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A server that every test may use, and none may stop."""
    if programs() is None:
        pytest.skip("PostgreSQL is not installed")
    with PostgresServer() as server:
        yield server


@pytest.fixture(scope="session")
def old() -> Path:
    """The packages of the release before."""
    try:
        return previous_release.packages()
    except FailedPrecondition as error:
        pytest.skip(error.message)


@pytest.fixture(scope="session")
def migrated(postgres: PostgresServer) -> str:
    """The name of a migrated database, to be copied."""
    from wan22_gateway.store.postgres import migrate_postgres  # not for tests of what needs no gateway

    name = postgres.create()
    migrate_postgres(postgres.url(name), None)
    return name
