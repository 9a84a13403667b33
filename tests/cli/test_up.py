"""`wan22 up` over real processes."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from wan22.client import Client
from wan22.errors import Unavailable
from wan22_cli.home import Home, Running
from wan22_testing import tiny_models
from wan22_testing.authority import Authority
from wan22_testing.service_process import free_port
from wan22_testing.wan22_command import Result, Wan22Command

TINY = "t2v-a14b-tiny"
FULL = "t2v-a14b"  # its weights are not here: registry and gateway start, and no worker


def free_ports() -> int:
    """A gateway's port such that it and the ports that go with it are free."""
    for port in random.sample(range(20_000, 30_000, 20), 500):
        probes = [socket.socket() for _ in range(9)]
        try:
            for probe, offset in zip(probes, (0, 1, 10, 11, 1000, 1001, 1010, 1011, 2000), strict=True):
                probe.bind(("127.0.0.1", port + offset))
        except OSError:
            continue
        else:
            return port
        finally:
            for probe in probes:
                probe.close()
    raise AssertionError("no ports are free")


class Up:
    """A running `wan22 up`, read line by line."""

    def __init__(self, command: Wan22Command, process: asyncio.subprocess.Process) -> None:
        self.command = command
        self.process = process
        self.home = Home(command.folder / "home")

    async def said(self, event: str) -> dict[str, Any]:
        """Returns the next line about an event."""
        assert self.process.stdout is not None
        async with asyncio.timeout(240):
            async for line in self.process.stdout:
                said: dict[str, Any] = json.loads(line)
                if said["event"] == event:
                    return said
        raise AssertionError(f"`up` ended without {event}: {(await self.stop()).err}")

    async def events_until_ready(self) -> list[str]:
        """Returns what it says something about until all is ready."""
        assert self.process.stdout is not None
        events = []
        async with asyncio.timeout(240):
            async for line in self.process.stdout:
                events.append(json.loads(line)["event"])
                if events[-1] == "ready":
                    return events
        raise AssertionError(f"`up` ended before it was ready: {(await self.stop()).err}")

    def running(self) -> Running:
        running = self.home.running()
        assert running is not None
        return running

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> Result:
        if self.process.returncode is None:
            self.process.send_signal(number)
        return await self.command.finish(self.process)


@asynccontextmanager
async def up(folder: Path, *arguments: str, **environment: str) -> AsyncIterator[Up]:
    command = Wan22Command(folder, None, OMP_NUM_THREADS="1", **environment)
    process = await command.start("up", *arguments, "--port", str(free_ports()), "--json")
    running = Up(command, process)
    try:
        yield running
    finally:
        await running.stop()


def exists(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"  # an orphan that nobody has reaped


async def gone(pids: list[int]) -> None:
    async with asyncio.timeout(60):
        while any(exists(pid) for pid in pids):  # noqa: ASYNC110  # no event tells of another process's child
            await asyncio.sleep(0.05)


@contextmanager
def listening() -> Iterator[int]:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", free_port()))
        taken.listen()
        yield taken.getsockname()[1]


async def test_a_tiny_variant_is_served_from_an_empty_folder_and_survives_kill_9(tmp_path: Path) -> None:
    async with up(tmp_path, TINY) as running:
        await running.said("making_model")
        ready = await running.said("ready")
        assert ready["variants"] == {TINY: "1 worker ready"}

        described = running.running()
        assert described.pid == running.process.pid
        assert described.variants == (TINY,)
        assert [process.name for process in described.processes] == [f"worker-{TINY}-0", "gateway", "registry"]
        assert ready["endpoint"] == described.endpoint
        async with httpx.AsyncClient(base_url=ready["http"]) as http:
            assert (await http.get("/ready")).json() == {"state": "ready"}

        made = await running.command("generate", "a red circle", "-o", "one.mp4", "--seed", "7", "--json")
        assert made.exit_code == 0, made.err
        assert (tmp_path / "one.mp4").stat().st_size == int(made.json()["video"]["size_bytes"])

        worker = described.processes[0]
        os.kill(worker.pid, signal.SIGKILL)
        restart = await running.said("restart")
        assert "ended (SIGKILL)" in restart["text"]
        await running.said("ready_again")
        again = running.running().processes[0]
        assert (again.name, again.port) == (worker.name, worker.port)
        assert again.pid != worker.pid

        second = await running.command("generate", "a red circle", "-o", "two.mp4", "--seed", "7", "--json")
        assert second.exit_code == 0, second.err
        assert (tmp_path / "two.mp4").read_bytes() == (tmp_path / "one.mp4").read_bytes()

        models = (await running.command("models", "list", "--json")).json_lines()
        adapters = [f"{TINY}-turbo-high", f"{TINY}-turbo-low"]
        assert [model["name"] for model in models] == [f"models/{name}" for name in (*adapters, f"wan2.2-{TINY}")]
        loras = [flag for name in adapters for flag in ("--lora", name)]
        turbo = await running.command(
            "generate", "a red circle", "--profile", "turbo", *loras, "-o", "turbo.mp4", "--json"
        )
        assert turbo.exit_code == 0, turbo.err
        assert turbo.json()["parameters"]["num_inference_steps"] == 4

        pids = [process.pid for process in running.running().processes]
        stopped = await running.stop(signal.SIGINT)
        assert (stopped.exit_code, stopped.err) == (130, "")
        assert [json.loads(line)["event"] for line in stopped.out.splitlines()] == ["stopping", "stopped"]
        await gone(pids)


async def test_another_releases_tiny_model_is_replaced_once_its_work_is_done_and_a_persons_is_kept(
    tmp_path: Path,
) -> None:
    random_model = tiny_models.shared_folder(TINY)
    async with up(tmp_path, FULL) as running:
        await running.said("ready")
        at = ("--registry", running.running().registry)
        done = await running.command("models", "import", str(random_model), "--variant", TINY, *at, "--json")
        assert done.exit_code == 0, done.err
        imported: str = done.json()["name"]

    async with up(tmp_path, TINY) as running:
        assert "making_model" not in await running.events_until_ready()
        long = ("--steps", "100", "--frames", "161")
        queued = await running.command("generate", "a red circle", *long, "--detach", "--json")
        assert queued.exit_code == 0, queued.err
        generation = queued.json()
        assert generation["model_version"] == imported
        running.process.kill()
    running.home.made_models.unlink()  # a release that made random models kept no notes

    async with up(tmp_path, TINY) as running:
        made = await running.said("making_model")
        assert made["text"].endswith(
            f"its model is another release's: making this one's. The registry keeps {imported}."
        )
        kept = await running.said("earlier_version")
        assert f"serving {imported} for generations from before" in kept["text"]
        await running.said("ready")
        cancelled = await running.command("generations", "cancel", generation["name"], "--json")
        assert cancelled.exit_code == 0, cancelled.err
        watched = await running.command("generations", "watch", generation["name"], "--json")
        assert watched.exit_code == 1, watched.out

    async with up(tmp_path, TINY) as running:
        assert {"making_model", "earlier_version"}.isdisjoint(await running.events_until_ready())
        made_now = await running.command("generate", "a red circle", "-o", "new.mp4", "--steps", "2", "--json")
        assert made_now.exit_code == 0, made_now.err
        current = made_now.json()["model_version"]
        listed = (await running.command("models", "list", "--json")).json_lines()
        (model,) = [model for model in listed if model["name"] == f"models/wan2.2-{TINY}"]
        tags = {version["name"]: version.get("tags") for version in model["versions"]}
        assert tags == {current: ["latest"], imported: None}


async def test_another_variant_says_how_to_import_its_model_and_waits(tmp_path: Path) -> None:
    async with up(tmp_path, FULL) as running:
        missing = await running.said("model_missing")
        target = running.running().registry
        assert f"wan22 models import DIR --variant {FULL} --registry {target}" in missing["text"]
        ready = await running.said("ready")
        assert ready["variants"] == {FULL: "waits for its model"}
        assert (await running.command("variants", "--json")).out == ""


async def test_one_up_a_folder_and_the_second_names_the_first(tmp_path: Path) -> None:
    async with up(tmp_path, FULL) as running:
        await running.said("ready")
        second = await running.command("up", FULL, "--port", str(free_ports()))
        assert second.exit_code == 1
        assert f"is in use by `wan22 up`, process id {running.process.pid}: stop that one" in second.err


async def test_nothing_is_left_when_up_itself_is_killed(tmp_path: Path) -> None:
    async with up(tmp_path, FULL) as running:
        await running.said("ready")
        pids = [process.pid for process in running.running().processes]
        running.process.kill()
        await running.process.wait()
        await gone(pids)
        assert running.home.running() is None


async def test_a_process_that_cannot_start_ends_up_with_the_end_of_its_log(tmp_path: Path) -> None:
    registry = tmp_path / "home" / "registry"
    registry.parent.mkdir()
    registry.write_text("no folder")
    result = await Wan22Command(tmp_path)("up", FULL, "--port", str(free_ports()))
    assert result.exit_code == 1
    assert result.err.startswith("Error: registry ended before it was ready (exit code 1).")
    assert f"The end of {tmp_path}/home/logs/registry.log:" in result.err


async def test_a_taken_port_is_named_with_the_setting_that_moves_it(tmp_path: Path) -> None:
    with listening() as port:
        result = await Wan22Command(tmp_path)("up", FULL, "--port", str(port - 1))
    assert result.exit_code == 1
    assert result.err.startswith(f"Error: The port {port} of registry is taken (Address already in use): stop what")
    assert "choose other ports by --port" in result.err


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["t2v"], "'t2v' is no variant: use one of t2v-a14b"),
        (["--workers", "0"], "should be greater than or equal to 1"),
    ],
)
async def test_bad_usage_is_exit_code_2(tmp_path: Path, arguments: list[str], text: str) -> None:
    result = await Wan22Command(tmp_path)("up", *arguments)
    assert result.exit_code == 2
    assert text in " ".join(result.err.split())


async def test_it_runs_over_tls_where_services_and_clients_are_given_certificates(tmp_path: Path) -> None:
    (tmp_path / "pki").mkdir()
    authority = Authority(tmp_path / "pki")
    given = {"WAN22_CA_FILE": str(authority.ca)}
    for role, prefix in (("gateway", "WAN22_GATEWAY"), ("registry", "WAN22_REGISTRY"), ("worker", "WAN22_WORKER")):
        tls = authority.issue(role)
        given |= {
            f"{prefix}_TLS_CA": str(tls.ca),
            f"{prefix}_TLS_CERT": str(tls.cert),
            f"{prefix}_TLS_KEY": str(tls.key),
        }
    mine = authority.issue("admin")
    given |= {"WAN22_CERT_FILE": str(mine.cert), "WAN22_KEY_FILE": str(mine.key)}
    async with up(tmp_path, TINY, **given) as running:
        await running.said("ready")
        endpoint = running.running().endpoint
        made = await running.command(
            "generate", "a red circle", "-o", "out.mp4", "--steps", "2", "--endpoint", endpoint, "--json"
        )
        assert made.exit_code == 0, made.err
        assert (tmp_path / "out.mp4").stat().st_size == int(made.json()["video"]["size_bytes"])
        with pytest.raises(Unavailable):
            async with Client(endpoint, first_patience=0, patience=0) as plain:
                await plain.variants()
