from __future__ import annotations

import subprocess
import sys

INTERRUPTED_ELSEWHERE = """
import asyncio, signal, sys, threading
import typer
from wan22_cli import failures

async def wait():
    interrupt = lambda: signal.pthread_kill(threading.get_ident(), signal.SIGINT)
    threading.Timer(0.1, interrupt).start()
    await asyncio.Event().wait()

try:
    failures.run(wait())
except typer.Exit as end:
    sys.exit(end.exit_code)
"""


def test_ctrl_c_ends_a_waiting_command_also_where_the_signal_comes_to_another_thread() -> None:
    done = subprocess.run([sys.executable, "-c", INTERRUPTED_ELSEWHERE], timeout=60, check=False)
    assert done.returncode == 130
