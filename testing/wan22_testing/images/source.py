"""What an image is built of: the files that git knows, and the names that follow from its commit."""

from __future__ import annotations

import os
import shutil
import subprocess
import tomllib
from dataclasses import dataclass
from pathlib import Path

SHA_DIGITS = 12
"""Of the commit in a tag."""


@dataclass(frozen=True)
class Source:
    """A working tree of git."""

    root: Path

    @property
    def version(self) -> str:
        """Of the distribution."""
        return str(tomllib.loads((self.root / "pyproject.toml").read_text())["project"]["version"])

    @property
    def commit(self) -> str:
        """Its 40 hexadecimal digits."""
        return self._git("rev-parse", "HEAD").strip()

    @property
    def created(self) -> str:
        """When the commit was made, as RFC 3339 in UTC."""
        return self._git("show", "--no-patch", "--format=%cd", "--date=format-local:%Y-%m-%dT%H:%M:%SZ", "HEAD").strip()

    @property
    def changed(self) -> bool:
        """Whether files differ from the commit, or are new."""
        return bool(self._git("status", "--porcelain").strip())

    @property
    def tag(self) -> str:
        """VERSION-gCOMMIT, with `-changed` where the tree is no commit's: then it names no one content."""
        return f"{self.version}-g{self.commit[:SHA_DIGITS]}" + ("-changed" if self.changed else "")

    def copy_to(self, folder: Path) -> None:
        """Copies the files that git has or would add, each with one of git's two modes and the time 0.

        Builders look at both to tell whether a layer that they have is still good.
        """
        names = self._git("ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0")
        for name in sorted({name for name in names if name}):
            file, copy = self.root / name, folder / name
            if not file.is_file():  # deleted, not yet committed
                continue
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)
            copy.chmod(0o755 if file.stat().st_mode & 0o100 else 0o644)
        for path in (folder, *folder.rglob("*")):
            if path.is_dir():
                path.chmod(0o755)
            os.utime(path, (0, 0))

    def _git(self, *arguments: str) -> str:
        environment = {"TZ": "UTC", "PATH": "/usr/local/bin:/usr/bin:/bin"}
        command = ["git", "-C", str(self.root), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout
