from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PARENT = """
import subprocess, sys, time
from wan22.bound_to_parent import bound_to_parent
command = bound_to_parent(["/usr/bin/tail", "--follow", sys.argv[1]])
child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=sys.stdout)
child.stdout.read(1)  # it follows the file: the program runs
print(child.pid, flush=True)
time.sleep(600)
"""


def test_a_bound_program_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    followed = tmp_path / "followed"
    followed.write_text("x")
    with subprocess.Popen([sys.executable, "-c", PARENT, str(followed)], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = Path("/proc") / parent.stdout.readline().strip()
        assert child.joinpath("comm").read_text().strip() == "tail"
        parent.kill()
        # the end of the pipe comes once nobody has it open: neither the parent nor the program, which also got it
        assert parent.stdout.read() == ""
