"""Writes docs/values.md from the comments and defaults of helm/wan22/values.yaml; `--check` says whether it is so."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import yaml  # type: ignore[import-untyped]

ROOT = Path(__file__).parent.parent
VALUES = ROOT / "helm/wan22/values.yaml"
TABLE = ROOT / "docs/values.md"
HEAD = """# Values of the chart

Made by `python tools/render_values.py` from [values.yaml](../helm/wan22/values.yaml). A value that is not here is
refused, with its name. [examples/values](../examples/values) has files for a single node, a GPU cluster with NVMe,
production with PostgreSQL and S3, and a mesh.

| value | default | what it is |
| --- | --- | --- |
"""


def rows(text: str) -> Iterator[tuple[str, str, str]]:
    """Each value's path, default as JSON, and the comment above it."""
    yield from _rows(yaml.compose(text), text.splitlines(), "")


def _rows(node: yaml.Node, lines: list[str], path: str) -> Iterator[tuple[str, str, str]]:
    for key, value in node.value:
        name = f"{path}.{key.value}".lstrip(".")
        nested = isinstance(value, yaml.MappingNode) and value.value
        comment = _comment_above(lines, key.start_mark.line)
        if not nested or value.flow_style:
            default = yaml.safe_load(yaml.serialize(value))
            yield name, json.dumps(default, ensure_ascii=False), comment
        else:
            if comment:
                yield name, "", comment
            yield from _rows(value, lines, name)


def _comment_above(lines: list[str], line: int) -> str:
    indent = re.match(" *", lines[line])
    found: list[str] = []
    while line and indent and lines[line - 1].startswith(f"{indent.group()}# "):
        line -= 1
        found.insert(0, lines[line].strip().removeprefix("# "))
    return " ".join(found)


def table(text: str) -> str:
    """The whole page."""
    cells = ((f"`{name}`", f"`{default}`" if default else "", what) for name, default, what in rows(text))
    return HEAD + "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |\n" for row in cells)


def main() -> int:
    """Returns the exit code."""
    wanted = table(VALUES.read_text())
    if "--check" in sys.argv[1:]:
        if TABLE.read_text() != wanted:
            print(f"{TABLE.name} is not what values.yaml says: run python tools/render_values.py")
            return 1
        return 0
    TABLE.write_text(wanted)
    return 0


if __name__ == "__main__":
    sys.exit(main())
