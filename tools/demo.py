"""`make demo`: starts everything in a folder of its own, makes one video, stops everything."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

VARIANT = "t2v-a14b-tiny"
PROMPT = "A red circle moves right"
SEED = "1"
WAN22 = Path(sys.executable).parent / "wan22"


def main() -> int:
    """Returns the exit code."""
    begin = time.monotonic()
    output = Path(sys.argv[1]).absolute()
    home = Path(__file__).parent.parent / "build" / "demo"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("WAN22_")}
    environment["WAN22_HOME"] = str(home)
    sys.stdout.write(f"$ wan22 up {VARIANT}\n")
    up = subprocess.Popen([WAN22, "up", VARIANT, "--json"], env=environment, stdout=subprocess.PIPE, text=True)
    try:
        if not _ready(up):
            return up.wait() or 1
        command = ["generate", PROMPT, "--seed", SEED, "-o", str(output)]
        sys.stdout.write(f'$ wan22 generate "{PROMPT}" --seed {SEED} -o {output.name}\n')
        sys.stdout.flush()
        code = subprocess.run([WAN22, *command], env=environment, check=False).returncode
    finally:
        up.send_signal(signal.SIGTERM)
        up.communicate()
    if code == 0:
        sys.stdout.write(f"\nThe video: {output}  ({time.monotonic() - begin:.0f} s)\n")
    return code


def _ready(up: subprocess.Popen[str]) -> bool:
    """Shows what `up` says until it serves; False when it ended before."""
    for line in up.stdout or ():
        said = json.loads(line)
        sys.stdout.write(f"{said['text']}\n")
        sys.stdout.flush()
        if said["event"] == "ready":
            return True
    return False


if __name__ == "__main__":
    sys.exit(main())
