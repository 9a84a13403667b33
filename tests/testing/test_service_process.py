from __future__ import annotations

import subprocess
import sys

from wan22_testing.service_process import BLOCK, free_port

TOLD = "from wan22_testing.service_process import free_port; print(*(free_port() for _ in range(20)))"


def test_a_port_is_told_again_only_after_hundreds_of_others() -> None:
    told = [free_port() for _ in range(2 * BLOCK)]

    for place, port in enumerate(told):
        assert port not in told[place + 1 : place + BLOCK // 2]


def test_two_processes_of_tests_are_never_told_the_same_port() -> None:
    mine = {free_port() for _ in range(BLOCK)}

    other = subprocess.run([sys.executable, "-c", TOLD], capture_output=True, text=True, check=True, timeout=60)

    assert not mine & {int(port) for port in other.stdout.split()}
