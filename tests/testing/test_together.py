from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import torch
from tools.together import Together, join
from torch import nn

ROOT = Path(__file__).parents[2]
SCRIPT = """
import json, sys, torch
from tools.together import Together, join

cpu = torch.device("cpu")
join(cpu)
together = Together(cpu)
parameters = [torch.nn.Parameter(torch.full((2, 3), 1.0 + together.rank)), torch.nn.Parameter(torch.zeros(()))]
places = [parameter.data_ptr() for parameter in parameters]
values = [together.mean(parameters, 10.0 * (together.rank + 1)), together.mean(parameters, 0.0)]
averaged = parameters[0].tolist()
with torch.no_grad():
    parameters[0].fill_(together.rank)
together.begin(parameters)
meetings = [step for step in range(40) if together.meets(step)]
same = places == [parameter.data_ptr() for parameter in parameters]
line = json.dumps([together.rank, values, averaged, parameters[0].tolist(), same, meetings]) + "\\n"
sys.stdout.write(line)
sys.stdout.flush()
"""


def test_two_processes_are_averaged_in_place(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(script)]
    done = subprocess.run(
        command, cwd=ROOT, env={"PYTHONPATH": str(ROOT), "PATH": ""}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    lines = sorted(json.loads(line) for line in done.stdout.splitlines() if line.startswith("["))
    assert lines == [
        [
            rank,
            [10.0 * (rank + 1), 15.0],
            [[1.5] * 3] * 2,
            [[0.0] * 3] * 2,
            True,
            [0, 16, 32],
        ]  # the second call has the first's mean
        for rank in (0, 1)
    ]


def test_one_process_is_left_as_it_is() -> None:
    cpu = torch.device("cpu")
    join(cpu)
    together = Together(cpu)
    parameter = nn.Parameter(torch.ones(2))
    together.begin([parameter])
    assert (together.rank, together.mean([parameter], 0.5), parameter.tolist()) == (0, 0.5, [1, 1])
    assert all(together.meets(step) for step in range(3))
