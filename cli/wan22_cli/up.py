"""`wan22 up`: everything on this machine, from one command."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import Annotated

import typer

from wan22.variants import VARIANTS
from wan22_cli import failures, options
from wan22_cli.home import Home
from wan22_cli.local.plan import GRPC_PORT, Plan, http_port_beside
from wan22_cli.local.screen import Screen
from wan22_cli.local.stack import Stack

DEFAULT_VARIANT = "t2v-a14b-tiny"


def up(
    variants: Annotated[
        list[str] | None,
        typer.Argument(metavar="VARIANT", help=f"What to serve: {', '.join(VARIANTS)}. Default: {DEFAULT_VARIANT}."),
    ] = None,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Workers of each variant.")] = 1,
    home: Annotated[
        Path | None,
        typer.Option(file_okay=False, envvar="WAN22_HOME", help="Folder of all state. Default: ~/.wan22."),
    ] = None,
    port: Annotated[
        int, typer.Option(min=1024, max=60_000, help="The gateway's; the registry gets the next one, workers +10 on.")
    ] = GRPC_PORT,
    http_port: Annotated[
        int | None,
        typer.Option(min=1, max=65_535, help="The gateway's, of HTTP. Default: 8080; 2000 above another --port."),
    ] = None,
    json: options.Json = False,
) -> None:
    """Starts registry, gateway and workers, and keeps them running until Ctrl-C."""
    named = list(dict.fromkeys(variants or [DEFAULT_VARIANT]))
    for variant in named:
        if variant not in VARIANTS:
            raise typer.BadParameter(f"{variant!r} is no variant: use one of {', '.join(VARIANTS)}.")
    folder = Home(home.expanduser().absolute()) if home else Home.from_environment()
    failures.run(_up(Plan(folder, named, workers, port, http_port or http_port_beside(port)), Screen(json=json)))


async def _up(plan: Plan, screen: Screen) -> None:
    with plan.home.own():
        plan.check_ports()
        stack = Stack(plan, screen)
        stopped = _Stop(stack, screen)
        running = asyncio.create_task(stack.run())
        waiting = asyncio.create_task(stopped.requested.wait())
        try:
            await asyncio.wait([running, waiting], return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
            running.cancel()
            await asyncio.wait([running])
            await stack.stop()
        if not running.cancelled():
            running.result()  # raises what ended it
    screen.say("stopped", "Everything is stopped.")
    if stopped.interrupted:
        raise typer.Exit(failures.INTERRUPTED)


class _Stop:
    """SIGINT, SIGTERM and SIGHUP: the first one asks everything to stop, a second one kills it."""

    def __init__(self, stack: Stack, screen: Screen) -> None:
        self.requested = asyncio.Event()
        self.interrupted = False
        self._stack = stack
        self._screen = screen
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(number, self._handle, number)

    def _handle(self, number: signal.Signals) -> None:
        if self.requested.is_set():
            self._stack.kill()
            return
        self.interrupted = number == signal.SIGINT
        self._screen.say("stopping", "Stopping; a second Ctrl-C kills.")
        self.requested.set()
