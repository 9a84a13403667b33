"""A tokenizer in a process of its own, for large ones: reading them holds Python's lock, and lets nothing else run."""

from __future__ import annotations

import json
import logging
import socket
import subprocess
import sys
import threading
import weakref
from array import array
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TypeVar

from wan22.errors import FailedPrecondition, InternalError, Reason

T = TypeVar("T")
log = logging.getLogger(__name__)

READ_SECONDS, ANSWER_SECONDS = 120.0, 30.0
"""How long reading the file may take, and one text."""


class TokenizerProcess:
    """Begins to read the file at once; the process ends with this object, and with the process that made it."""

    waits = True

    def __init__(self, path: Path, answer_seconds: float = ANSWER_SECONDS) -> None:
        self._path = path
        self._answer_seconds = answer_seconds
        self._asking = threading.Lock()
        self._last_token: str | None = None
        self._begin()

    @property
    def pid(self) -> int:
        """The process's."""
        return self._process.pid

    @property
    def last_token(self) -> str:
        """What each text ends with, once the file is read."""
        return self._of_one_that_runs(self._wait_for_file)

    def ids(self, text: str) -> tuple[int, ...]:
        """The tokens of a text."""
        return self._of_one_that_runs(partial(self._ask, text))

    def _of_one_that_runs(self, ask: Callable[[], T]) -> T:
        """The answer of the process, or of another one when it has ended."""
        with self._asking:
            try:
                return ask()
            except (EOFError, OSError) as error:
                log.warning("The tokenizer's process has ended (%s): another one is started.", _reason(error))
            self._end()
            self._begin()
            try:
                return ask()
            except (EOFError, OSError) as error:
                raise InternalError(f"The tokenizer's process ended twice ({_reason(error)}).") from error

    def _begin(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            command = [sys.executable, "-m", "wan22.tokenizer", str(theirs.fileno()), str(self._path)]
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()])
        self._connection = Connection(ours.detach())
        self._last_token = None
        self._end = weakref.finalize(self, _end, self._process, self._connection)

    def _wait_for_file(self) -> str:
        if self._last_token is None:
            told = json.loads(self._receive(READ_SECONDS))
            if "misfit" in told:
                raise FailedPrecondition(told["misfit"], reason=Reason.MODEL_MISFIT)
            self._last_token = told["last_token"]
        return self._last_token

    def _ask(self, text: str) -> tuple[int, ...]:
        self._wait_for_file()
        self._connection.send_bytes(text.encode())
        return tuple(array("I", self._receive(self._answer_seconds)))

    def _receive(self, seconds: float) -> bytes:
        if not self._connection.poll(seconds):
            self._process.kill()  # an answer that came later would be taken for another text's
            raise InternalError(f"The tokenizer's process did not answer for {seconds:g} s and was ended.")
        return self._connection.recv_bytes()


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__


def _end(process: subprocess.Popen[bytes], connection: Connection) -> None:
    """The process ends when the connection does."""
    connection.close()
    try:
        process.wait(5.0)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
