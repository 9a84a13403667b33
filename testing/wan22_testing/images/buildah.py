"""buildah, as builds use it: no daemon, and no privileges beyond those of the caller where chroot is enough."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from wan22.errors import FailedPrecondition
from wan22_testing.images.settling import settle


class Buildah:
    """The program, with its storage of images."""

    def __init__(self) -> None:
        """Raises FailedPrecondition where it is not installed."""
        if shutil.which("buildah") is None:
            raise FailedPrecondition(
                "buildah is not on PATH: install it (`apt-get install buildah`), version 1.28 or newer."
            )
        # chroot: no new namespaces, which most CI machines refuse to a container
        self._environment = {"BUILDAH_ISOLATION": "chroot", **os.environ}

    def run(self, *arguments: str) -> str:
        """Returns what a subcommand prints; what it says on the way goes to our own stderr."""
        command = ["buildah", *arguments]
        return subprocess.run(
            command, check=True, text=True, stdout=subprocess.PIPE, env=self._environment
        ).stdout.strip()

    def has(self, reference: str) -> bool:
        """Whether the storage holds the image."""
        command = ["buildah", "inspect", "--type", "image", reference]
        return subprocess.run(command, check=False, capture_output=True, env=self._environment).returncode == 0

    def build(
        self,
        context: Path,
        target: str,
        reference: str,
        *,
        arguments: Mapping[str, str],
        labels: Mapping[str, str],
        secrets: Mapping[str, Path],
        flags: Sequence[str] = (),
    ) -> None:
        """Builds one target of the context's Containerfile, and prints the steps on stderr.

        All files get the time 0, so that a layer is named by its content alone: that of the dependencies stays the
        same over commits, and a node that has it pulls only what changed.
        """
        options = ["--layers", "--timestamp", "0", "--target", target, "--tag", reference, *flags]
        options += [f"--build-arg={name}={value}" for name, value in arguments.items()]
        options += [f"--label={name}={value}" for name, value in labels.items()]
        options += [f"--secret=id={name},src={file}" for name, file in secrets.items()]
        command = ["buildah", "build", *options, str(context)]
        subprocess.run(command, check=True, stdout=sys.stderr, env=self._environment)

    def export(self, reference: str, archive: Path) -> None:
        """Writes an OCI archive that names the image by `reference`, whole or not at all."""
        part = archive.with_suffix(".part")
        part.unlink(missing_ok=True)
        self.run("push", "--quiet", reference, f"oci-archive:{part}:{reference}")
        settled = archive.with_suffix(".settled")
        settle(part, settled)
        settled.replace(archive)
        part.unlink()
