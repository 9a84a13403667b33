"""The main function that every service's `__main__` shares."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from wan22.errors import Wan22Error
from wan22.server import configure_logging
from wan22.settings import Settings

S = TypeVar("S", bound=Settings)


def run_service(
    module: str,
    service: str,
    settings: type[S],
    serve: Callable[[S], Coroutine[Any, Any, None]],
    loop: Callable[[], asyncio.AbstractEventLoop] | None = None,
) -> int:
    """Reads the settings, runs a service to its end, and returns the process's exit code.

    `loop` makes the event loop; None is asyncio's own. An error that has a meaning for the operator is one sentence on
    standard error, and exit code 1.
    """
    loaded = settings.load(module)
    configure_logging(service)
    try:
        with asyncio.Runner(loop_factory=loop) as runner:
            runner.run(serve(loaded))
    except Wan22Error as error:
        sys.stderr.write(f"{module}: {error.message}\n")
        return 1
    return 0
