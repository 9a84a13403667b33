"""Where the programs lie that a test cluster runs."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from wan22.errors import FailedPrecondition

KUBERNETES_VERSION = "1.34.4"
"""What `make kube-bin` builds; tools/kube/go.mod pins all that it is made of."""
API_SERVER = ("etcd", "kube-apiserver", "kubectl")
CONTROLLERS = ("kube-controller-manager", "kube-scheduler")
"""Not in the folders that envtest downloads."""
ASSETS_VARIABLE = "KUBEBUILDER_ASSETS"


def built_folder() -> Path:
    """Where `make kube-bin` puts them: outside the tree, one folder a version."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "wan22" / "kube" / KUBERNETES_VERSION


@dataclass(frozen=True)
class Programs:
    """A folder of them."""

    folder: Path

    @classmethod
    def find(cls) -> Programs:
        """The folder that KUBEBUILDER_ASSETS names, as envtest lays it out, else the one that `make kube-bin` fills."""
        named = os.environ.get(ASSETS_VARIABLE)
        return cls(Path(named) if named else built_folder())

    def require(self, *names: str) -> None:
        """Raises FailedPrecondition with those that are not there, and what to do."""
        missing = [name for name in names if not self.has(name)]
        if missing:
            raise FailedPrecondition(
                f"{', '.join(missing)}: not in {self.folder}. Run `make kube-bin` (it takes Go), or name a folder that "
                f"holds them by {ASSETS_VARIABLE}."
            )

    def has(self, name: str) -> bool:
        """Whether the program is there and may be run."""
        return os.access(self.folder / name, os.X_OK)

    def path(self, name: str) -> Path:
        """The program's absolute path."""
        return (self.folder / name).resolve()
