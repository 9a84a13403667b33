"""Generates the Python code of protos/ into services/common/wan22/{v1,keda} on every wheel and editable build."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


def generate(root: Path) -> None:
    """Runs protoc on every proto of the project; safe to repeat."""
    protos = root / "protos"
    out = root / "services" / "common"
    # google.rpc's protos come with googleapis-common-protos' descriptors, whose folder is found by import.
    import google.rpc  # noqa: PLC0415

    googleapis = Path(next(iter(google.rpc.__path__))).parent.parent
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{protos}", f"-I{googleapis}"]
    command += [f"--{plugin}_out={out}" for plugin in ("python", "grpc_python", "mypy", "mypy_grpc")]
    command += [str(proto) for proto in sorted(protos.glob("wan22/*/*.proto"))]
    scripts = Path(sys.executable).parent
    plugins = [f"--plugin={name}={scripts / name}" for name in ("protoc-gen-mypy", "protoc-gen-mypy_grpc")]
    plugins = [plugin for plugin in plugins if Path(plugin.rpartition("=")[2]).exists()]  # else from PATH
    subprocess.run([*command[:3], *plugins, *command[3:]], check=True)
    for package in ("v1", "keda"):
        (out / "wan22" / package / "__init__.py").write_text("")


class Generate(BuildHookInterface[Any]):
    """hatchling's hook around `generate`."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called by hatchling before each build."""
        generate(Path(self.root))


if __name__ == "__main__":
    generate(Path(__file__).parent)
