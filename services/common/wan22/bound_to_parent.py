"""Runs a program that ends with its parent: `python bound_to_parent.py PARENT_PID PROGRAM ARGUMENT...`.

Linux kills the program when the parent's thread ends, however it ends (prctl(2), PR_SET_PDEATHSIG; kept by execve).
SIGKILL, since nothing that wan22 accepted is lost by it and nothing can ignore it. A wrapper program rather than a
`preexec_fn`, which is unsafe in a process with threads.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Sequence

PR_SET_PDEATHSIG = 1


def bound_to_parent(command: Sequence[str]) -> list[str]:
    """The command that ends with this process's calling thread at the latest; its program is an absolute path."""
    return [sys.executable, __file__, str(os.getpid()), *command]


def main() -> None:
    """Becomes the program."""
    parent, *program = sys.argv[1:]
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != int(parent):  # it ended before prctl
        sys.exit(1)
    os.execv(program[0], program)  # noqa: S606  # no shell is wanted


if __name__ == "__main__":
    main()
