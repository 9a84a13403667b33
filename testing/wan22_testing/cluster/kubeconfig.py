"""Files that tell kubectl, and any Kubernetes client, where an API server is and who is asking."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from wan22_testing.cluster.certificates import KeyPair


def write_kubeconfig(path: Path, *, server: str, authority: Path, user: KeyPair | str) -> Path:
    """Writes one, in JSON, which is YAML too; the user is known by a certificate or by a token."""
    credentials: Mapping[str, str]
    if isinstance(user, KeyPair):
        credentials = {"client-certificate": str(user.certificate), "client-key": str(user.key)}
    else:
        credentials = {"token": user}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "test", "cluster": {"server": server, "certificate-authority": str(authority)}}],
        "users": [{"name": "test", "user": credentials}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test", "namespace": "default"}}],
        "current-context": "test",
    }
    path.touch(mode=0o600)
    path.write_text(json.dumps(config, indent=1))
    return path
