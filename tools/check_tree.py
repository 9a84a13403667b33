"""Checks rules of the tree that no linter knows."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

MOST_LINES = 400


def problems(root: Path) -> list[str]:
    """What is wrong with the files that git knows or would add."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.py"]
    names = subprocess.run(command, cwd=root, check=True, capture_output=True, text=True).stdout.splitlines()
    found = []
    for path in (root / name for name in names):
        if not path.exists():  # deleted, not yet committed
            continue
        name = path.relative_to(root)
        lines = len(path.read_text().splitlines())
        if lines > MOST_LINES:
            found.append(f"{name} has {lines} lines: split it, {MOST_LINES} are the most.")
        if path.name == "__init__.py" and (name.parent == Path("operator") or name.parts[0] == "tests"):
            found.append(f"{name}: remove it; with it `operator` or `tests` shadows another package.")
        if path.name in {"utils.py", "helpers.py"}:
            found.append(f"{name}: name it after what it holds.")
    return found


if __name__ == "__main__":
    found = problems(Path(__file__).parent.parent)
    sys.stdout.write("".join(f"{problem}\n" for problem in found))
    sys.exit(1 if found else 0)
