"""`wan22 doctor`: what of this machine and of a running wan22 is in order, and what to do about the rest."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import asdict, dataclass
from enum import StrEnum
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import grpc
import typer
from grpc_health.v1 import health_pb2, health_pb2_grpc

from wan22.errors import Wan22Error
from wan22_cli import failures, options
from wan22_cli.home import Home, RunningProcess
from wan22_cli.terminal import file_size, print_json, print_table

LEAST_FREE_BYTES = 5_000_000_000
"""Of the disk of WAN22_HOME: logs, videos and a model's cache would soon fill less."""
FP8 = (8, 9)
"""The compute capability from which on a card multiplies float8."""
HOPPER = (9, 0)
DEADLINE = 5.0


class Level(StrEnum):
    """How grave a finding is."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    subject: str
    level: Level
    text: str
    """What is there, and what to do where that is not good."""


def doctor(endpoint: options.Endpoint = None, registry: options.Registry = None, json: options.Json = False) -> None:
    """Looks at this machine and at what runs, and says what is wrong. Exit code 1 when there is a problem."""

    async def command() -> None:
        findings = [finding for check in HERE for finding in check()]
        findings += [finding async for finding in _running(endpoint, registry)]
        if json:
            for finding in findings:
                print_json(asdict(finding))
        else:
            print_table(["", "WHAT", "FOUND"], [[f.level, f.subject, f.text] for f in findings])
        if any(finding.level is Level.PROBLEM for finding in findings):
            raise typer.Exit(failures.FAILED)

    failures.run(command())


def packages() -> Iterator[Finding]:
    """What is installed."""
    found = [f"Python {platform.python_version()}"]
    for name in ("wan22", "torch", "triton", "grpcio"):
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            found.append(f"no {name}")
    yield Finding("packages", Level.OK, ", ".join(found))


def device() -> Iterator[Finding]:
    """What computes."""
    if find_spec("torch") is None:
        text = "torch is not installed: this machine can call a gateway, but serve no model. Install wan22[local]."
        yield Finding("device", Level.WARNING, text)
        return
    import torch  # noqa: PLC0415  # seconds, and not at hand in every install

    driver = Path("/dev/nvidiactl").exists()
    if not torch.cuda.is_available():
        if driver:
            text = (
                f"there is an NVIDIA driver, but torch {torch.__version__} sees no CUDA device: install its CUDA build."
            )
            yield Finding("device", Level.PROBLEM, text)
        else:
            text = f"no GPU, {os.cpu_count()} processors: only the tiny variants are made in seconds."
            yield Finding("device", Level.WARNING, text)
        return
    for index in range(torch.cuda.device_count()):
        card = torch.cuda.get_device_properties(index)
        capability = (card.major, card.minor)
        text = f"{card.name}, {file_size(card.total_memory)}, compute capability {card.major}.{card.minor}"
        if capability < FP8:
            yield Finding("device", Level.WARNING, f"{text}: without float8 products, so that fp8 saves memory alone.")
        elif capability == HOPPER and find_spec("fa3_fwd") is None:
            yield Finding("device", Level.WARNING, f"{text}: FlashAttention-3 is not installed: pip install fa3-fwd.")
        else:
            yield Finding("device", Level.OK, text)


def encoder() -> Iterator[Finding]:
    """What writes MP4 files."""
    if find_spec("av") is None:
        return
    import av  # noqa: PLC0415  # not at hand in every install

    try:
        av.Codec("libx264", "w")
    except ValueError as error:
        text = f"PyAV {av.__version__} has no libx264 ({error}): videos cannot be written. Install PyAV from PyPI."
        yield Finding("video encoder", Level.PROBLEM, text)
    else:
        yield Finding("video encoder", Level.OK, f"libx264, by PyAV {av.__version__}")


def folder() -> Iterator[Finding]:
    """Where `wan22 up` keeps its state."""
    home = Home.from_environment().path
    there = next(path for path in (home, *home.parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        text = f"{home} cannot be made or written: set WAN22_HOME to a folder that can."
        yield Finding("folder", Level.PROBLEM, text)
        return
    free = shutil.disk_usage(there).free
    text = f"{home}, {file_size(free)} free"
    if free < LEAST_FREE_BYTES:
        yield Finding("folder", Level.WARNING, f"{text}: make room, or set WAN22_HOME to a folder on another disk.")
    else:
        yield Finding("folder", Level.OK, text)


HERE: tuple[Callable[[], Iterator[Finding]], ...] = (packages, device, encoder, folder)


async def _running(endpoint: str | None, registry: str | None) -> AsyncIterator[Finding]:
    """What answers."""
    up = Home.from_environment().running()
    if up is None and endpoint is None:
        yield Finding("wan22 up", Level.WARNING, "does not run here, and WAN22_ENDPOINT names no gateway elsewhere.")
        return
    for process in () if up is None else up.processes:
        yield await _process(process)
    async for finding in _gateway(endpoint):
        yield finding
    if up is not None or registry is not None:
        yield await _registry(registry)


async def _process(process: RunningProcess) -> Finding:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{process.health_port}") as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)  # typed as if it were without methods
        try:
            answer = await stub.Check(health_pb2.HealthCheckRequest(service="ready"), timeout=DEADLINE)
        except grpc.aio.AioRpcError as error:
            text = f"process {process.pid} does not answer ({error.details()}): see its log in the folder's logs."
            return Finding(process.name, Level.PROBLEM, text)
    if answer.status == health_pb2.HealthCheckResponse.SERVING:
        return Finding(process.name, Level.OK, f"process {process.pid} serves at port {process.port}")
    return Finding(process.name, Level.WARNING, f"process {process.pid} is not ready yet: see its log.")


async def _gateway(endpoint: str | None) -> AsyncIterator[Finding]:
    client = options.connect(endpoint)
    try:
        async with client:
            served = await client.variants()
    except Wan22Error as error:
        yield Finding("gateway", Level.PROBLEM, error.message)
        return
    yield Finding("gateway", Level.OK, f"answers at {client.endpoint}, with {len(served)} variants")
    for variant in served:
        level = Level.OK if variant.ready_workers else Level.WARNING
        text = f"{variant.ready_workers} ready workers" if variant.ready_workers else "no worker is ready: work waits"
        yield Finding(variant.name, level, f"{text}, {variant.model_version}")


async def _registry(registry: str | None) -> Finding:
    try:
        async with options.connect_registry(registry) as client:
            models = await client.list_models()
    except Wan22Error as error:
        return Finding("registry", Level.PROBLEM, error.message)
    versions = sum(len(model.versions) for model in models)
    return Finding("registry", Level.OK, f"answers at {options.registry_target(registry)}, with {versions} versions")
