"""A base image of Debian's own packages, by debootstrap: for machines that reach no registry of images."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

from wan22_testing.images.buildah import Buildah

BASE, BUILD_BASE = "localhost/wan22/debian-python", "localhost/wan22/debian-python-build"
"""The second is the first with pip, and of no use but to build."""
PACKAGES = ("ca-certificates", "python3")
BUILD_PACKAGES = ("python3-venv",)
SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# Package lists and archives, logs, what is made anew when missing, manuals and translations; copyright files stay.
CLEAN = """
apt-get clean
rm -rf /var/lib/apt/lists/* /var/log/* /var/cache/ldconfig/* /var/cache/debconf/*-old /var/lib/dpkg/*-old /tmp/*
rm -rf /usr/share/man/* /usr/share/info/* /usr/share/locale/* /etc/machine-id
find /usr/share/doc -type f ! -name copyright -delete
find /usr/share/doc -type l -delete
find / -xdev -name __pycache__ -prune -exec rm -rf {} +
"""
UPGRADE = "export DEBIAN_FRONTEND=noninteractive\napt-get update -qq\napt-get upgrade -qq --yes >/dev/null\n"


def make(buildah: Buildah, suite: str, mirror: str, security: str) -> tuple[str, str]:
    """Makes both images of a suite, such as bookworm, with its security updates; returns their references.

    What is in the storage already is used as it is: remove it (`buildah rmi`) for newer packages.
    """
    base, build_base = f"{BASE}:{suite}", f"{BUILD_BASE}:{suite}"
    if not buildah.has(base):
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder) / "root"
            packages = f"--include={','.join(PACKAGES)}"
            subprocess.run(
                ["debootstrap", "--variant=minbase", packages, suite, str(root), mirror], check=True, stdout=2
            )
            shutil.rmtree(root / "dev")  # a container gets its own, and not everybody may make a device
            (root / "dev").mkdir(mode=0o755)
            for of_this_machine in ("resolv.conf", "hostname"):
                (root / "etc" / of_this_machine).unlink(missing_ok=True)
            sources = [f"deb {mirror} {suite} main", f"deb {mirror} {suite}-updates main"]
            sources.append(f"deb {security} {suite}-security main")
            (root / "etc/apt/sources.list").write_text("\n".join([*sources, ""]))
            _commit(buildah, "scratch", root, UPGRADE, base)
    if not buildah.has(build_base):
        install = f"{UPGRADE}apt-get install -qq --yes --no-install-recommends {' '.join(BUILD_PACKAGES)} >/dev/null\n"
        _commit(buildah, base, None, install, build_base)
    return base, build_base


def _commit(buildah: Buildah, parent: str, root: Path | None, script: str, reference: str) -> None:
    container = buildah.run("from", parent)
    try:
        if root is not None:
            buildah.run("add", "--quiet", container, str(root), "/")
            buildah.run("config", "--env", f"PATH={SEARCH_PATH}", "--cmd", "python3", container)
        buildah.run("run", container, "--", "sh", "-euc", script + CLEAN)
        buildah.run("commit", "--quiet", "--timestamp", "0", container, reference)
    finally:
        buildah.run("rm", container)
