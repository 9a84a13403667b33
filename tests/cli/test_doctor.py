from __future__ import annotations

import os
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tests.gateway.scripted_worker import T2V, ScriptedWorkerServicer, place_at, place_with

from wan22_cli.doctor import Level, device, folder
from wan22_cli.home import Home, Running, RunningProcess
from wan22_testing.service_process import free_port
from wan22_testing.wan22_command import Result, Wan22Command


def levels(result: Result) -> dict[str, str]:
    return {finding["subject"]: finding["level"] for finding in result.json_lines()}


async def test_a_machine_where_nothing_runs_has_no_problem(tmp_path: Path) -> None:
    wan22 = Wan22Command(tmp_path)
    found = await wan22("doctor", "--json")
    assert found.exit_code == 0, found.err
    assert levels(found)["wan22 up"] == "warning"
    assert f"torch {version('torch')}" in found.out
    assert "libx264" in (await wan22("doctor")).out


async def test_a_served_variant_is_in_order_and_one_without_a_worker_is_not(tmp_path: Path) -> None:
    async with place_with(tmp_path / "a", ScriptedWorkerServicer()) as place:
        await place.client.wait((await place.client.create(variant=T2V, prompt="x")).name)
        found = levels(await Wan22Command(tmp_path, WAN22_ENDPOINT=place.client.endpoint)("doctor", "--json"))
    assert (found["gateway"], found[T2V]) == ("ok", "ok")
    async with place_at(tmp_path / "b", "127.0.0.1:9") as place:
        found = levels(await Wan22Command(tmp_path, WAN22_ENDPOINT=place.client.endpoint)("doctor", "--json"))
    assert (found["gateway"], found[T2V]) == ("ok", "warning")


async def test_who_does_not_answer_is_a_problem(tmp_path: Path) -> None:
    gateway, registry, worker = (free_port() for _ in range(3))
    home = Home(tmp_path / "home")
    with home.own():
        process = RunningProcess("worker-0", os.getpid(), worker, worker)
        home.describe(Running(os.getpid(), f"localhost:{gateway}", f"localhost:{registry}", (T2V,), (process,)))
        found = await Wan22Command(tmp_path)("doctor", "--json")
    assert found.exit_code == 1
    assert [levels(found)[name] for name in ("worker-0", "gateway", "registry")] == ["problem"] * 3


def test_a_home_that_cannot_be_made_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("WAN22_HOME", str(tmp_path / "file" / "home"))
    (finding,) = folder()
    assert finding.level is Level.PROBLEM
    assert "set WAN22_HOME" in finding.text


@pytest.mark.parametrize(
    ("capability", "flash", "level", "said"),
    [
        ((8, 6), True, Level.WARNING, "without float8"),
        ((8, 9), False, Level.OK, "compute capability 8.9"),
        ((9, 0), False, Level.WARNING, "pip install fa3-fwd"),
        ((9, 0), True, Level.OK, "85 GB"),
    ],
)
def test_a_card_is_told_with_what_it_lacks(
    capability: tuple[int, int], flash: bool, level: Level, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    major, minor = capability
    card = SimpleNamespace(name="A card", total_memory=85_000_000_000, major=major, minor=minor)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: card)

    def find(name: str) -> Any:
        return flash or name != "fa3_fwd" or None

    monkeypatch.setattr("wan22_cli.doctor.find_spec", find)
    (finding,) = device()
    assert (finding.level, said in finding.text) == (level, True), finding.text
