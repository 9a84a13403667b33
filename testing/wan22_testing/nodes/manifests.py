"""What an installation of the built programs applies, as the modules that they are built from have it."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from wan22_testing.cluster.programs import Programs

Modules = Callable[[str], Path]
"""The folder of a Go module that go.sum pins."""
CERT_MANAGER = "cert-manager"
"""Its chart's release and namespace."""


def keda(modules: Modules) -> str:
    """Its operator and its metrics adapter."""
    return _kustomized(modules("github.com/kedacore/keda/v2") / "config/minimal")


def cert_manager(modules: Modules) -> str:
    """Its chart, put together as for its releases: the definitions lie beside it, and it says no version."""
    module = modules("github.com/cert-manager/cert-manager")
    version = module.name.rpartition("@")[2]
    with tempfile.TemporaryDirectory() as folder:
        chart = Path(folder) / CERT_MANAGER
        _copy(module / "deploy/charts/cert-manager", chart)
        (chart / "Chart.template.yaml").unlink()
        about = {"apiVersion": "v1", "name": CERT_MANAGER, "version": version, "appVersion": version}
        (chart / "Chart.yaml").write_text("".join(f"{key}: {value}\n" for key, value in about.items()))
        for definition in (module / "deploy/crds").glob("crd-*.yaml"):
            shutil.copyfile(definition, chart / "templates" / definition.name)
        helm = [str(Programs.find().path("helm")), "template", CERT_MANAGER, str(chart)]
        command = [*helm, f"--namespace={CERT_MANAGER}", "--set=startupapicheck.enabled=false"]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def traefik(modules: Modules) -> str:
    """Definitions of the Gateway API and its own, and what it may do; how it runs is for whoever installs it."""
    documents = modules("github.com/traefik/traefik/v3") / "docs/content/reference/dynamic-configuration"
    own = ("kubernetes-crd-definition-v1", "kubernetes-crd-rbac", "kubernetes-gateway-rbac")
    texts = [_kustomized(modules("sigs.k8s.io/gateway-api") / "config/crd")]
    texts += [(documents / f"{name}.yml").read_text() for name in own]
    return "\n---\n".join(texts)


def _kustomized(folder: Path) -> str:
    command = [str(Programs.find().path("kubectl")), "kustomize", str(folder)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def _copy(source: Path, target: Path) -> None:
    """A folder of Go's cache of modules, where everything is read-only."""
    for path in source.rglob("*"):
        if path.is_file():
            there = target / path.relative_to(source)
            there.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, there)
