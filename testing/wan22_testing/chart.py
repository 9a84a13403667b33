"""The chart as Helm renders it, without a cluster."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from wan22_testing.cluster.helm import Helm
from wan22_testing.cluster.programs import Programs

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm/wan22"
EXAMPLES = ROOT / "examples/values"
GOLDEN = ROOT / "tests/chart/golden"
RELEASE = NAMESPACE = "wan22"
DEFINITION = "CustomResourceDefinition"
MADE = "made at install"
"""Stands for what differs at every rendering: keys and certificates."""


class Chart:
    """Renders it; `folder` is for Helm's own files."""

    def __init__(self, programs: Programs, folder: Path) -> None:
        self._helm = Helm(programs, folder / "kubeconfig")

    def lint(self, *flags: str) -> str:
        """What `helm lint` says. Raises Refused."""
        return self._helm("lint", str(CHART), *flags)

    def objects(self, *flags: str) -> list[dict[str, Any]]:
        """All that it would install, hooks included. Raises Refused."""
        text = self._helm("template", RELEASE, str(CHART), "--namespace", NAMESPACE, *flags)
        return [found for found in yaml.safe_load_all(text) if found]

    def example(self, example: Path) -> list[dict[str, Any]]:
        """All that it would install with a file of values."""
        return self.objects(f"--values={example}")


def golden_text(objects: Sequence[dict[str, Any]]) -> str:
    """What is reviewed of them: the definitions, which are files already, and what is random, are left out."""
    shown = [_without_secrets(found) for found in objects if found["kind"] != DEFINITION]
    shown.sort(key=lambda found: (found["kind"], found["metadata"].get("namespace", ""), found["metadata"]["name"]))
    return str(yaml.safe_dump_all(shown, sort_keys=True, width=120))


def _without_secrets(found: dict[str, Any]) -> dict[str, Any]:
    if found["kind"] != "Secret":
        return found
    hidden: dict[str, Any] = {
        part: dict.fromkeys(found[part], MADE) for part in ("data", "stringData") if part in found
    }
    return {**found, **hidden}
