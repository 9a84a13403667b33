"""How a command fails: one sentence on standard error and an exit code, never a traceback."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from typing import Any, NoReturn

import typer

from wan22.errors import DeadlineExceeded, InvalidRequest, Unavailable, Wan22Error
from wan22_cli.terminal import note

FAILED = 1
BAD_USAGE = 2
UNREACHABLE = 3
INTERRUPTED = 130


def exit_code(error: Wan22Error) -> int:
    """2 for a request that breaks a rule, 3 where nobody answers, else 1."""
    if isinstance(error, InvalidRequest):
        return BAD_USAGE
    return UNREACHABLE if isinstance(error, Unavailable | DeadlineExceeded) else FAILED


def stop(error: Wan22Error) -> NoReturn:
    """Says what is wrong, with the fields at fault, and ends the command."""
    report(error)
    raise typer.Exit(exit_code(error))


def report(error: Wan22Error) -> None:
    """Says what is wrong; fields at fault get a line each where there are several."""
    violations = error.violations if isinstance(error, InvalidRequest) else ()
    if len(violations) < 2:
        note(f"Error: {error.message}")
        return
    note("Error: the request is wrong in several fields.")
    for violation in violations:
        note(f"  {violation.field}: {violation.description}")


def run(command: Coroutine[Any, Any, None]) -> None:
    """Runs a command's coroutine. Ctrl-C cancels it first and then ends with 130; a second one ends it at once."""
    try:
        asyncio.run(_interruptible(command))
    except (KeyboardInterrupt, asyncio.CancelledError):
        raise typer.Exit(INTERRUPTED) from None
    except Wan22Error as error:
        stop(error)
    except BrokenPipeError:  # `| head` has read enough
        raise
    except OSError as error:
        note(f"Error: {error.filename or 'the system'}: {error.strerror or error}.")
        raise typer.Exit(FAILED) from None


async def _interruptible(command: Coroutine[Any, Any, None]) -> None:
    """Cancels a command at the first SIGINT.

    `asyncio.run` would too, but a signal that comes just before the event loop goes to sleep, or to another thread,
    does not wake it there; a handler of the loop does.
    """
    loop, task = asyncio.get_running_loop(), asyncio.current_task()

    def interrupt() -> None:
        loop.remove_signal_handler(signal.SIGINT)
        if task is not None:
            task.cancel()

    loop.add_signal_handler(signal.SIGINT, interrupt)
    await command
