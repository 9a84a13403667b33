"""The operator's settings."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

from wan22.server_settings import ServerSettings


class OperatorSettings(ServerSettings):
    """Read once, in `__main__`. `host` is of the health and the HTTP port; the TLS files are for calling services."""

    model_config = SettingsConfigDict(env_prefix="WAN22_OPERATOR_")

    health_port: int = Field(51054, ge=0, le=65535)
    """Port of grpc.health.v1, plaintext; 0 picks a free one."""
    http_port: int | None = Field(None, ge=0, le=65535)
    """Port of /metrics, /health and /ready, plain HTTP; 0 picks a free one. Without it there is none."""
    kubeconfig: Path | None = None
    """Whom to ask and as whom; by default the cluster that it runs in, as its service account, else $KUBECONFIG."""
    namespaces: list[str] = Field(default_factory=list)
    """Whose pools and models it looks after; by default those of all namespaces. The flag may be repeated; the variable
    is a JSON list."""
    namespace: str = "default"
    """Its own: where its Lease, the GPU budget and the gateway are."""
    identity: str = Field(default_factory=socket.gethostname)
    """By which it holds the Lease: its pod's name."""
    lease_name: str = "wan22-operator"
    """Name of the Lease, and of the ConfigMap of the GPU budget."""
    lease_seconds: int = Field(15, ge=3, le=3600)
    """How long another one waits after the last sign of life."""
    gateway: str = "localhost:50051"
    """host:port of the gateway."""
    api_key: SecretStr = SecretStr("")
    """Key of the role `operator` at the gateway; empty where its auth is off."""
    registry: str = "localhost:50052"
    """host:port of the model registry."""
    worker_registry: str = ""
    """host:port of the model registry as the workers reach it; as the operator does when empty."""
    worker_image: str
    """Image of the workers of pools that name none, taken when a pool is first seen. Required."""
    worker_image_pull_secrets: list[str] = Field(default_factory=list)
    """Names of Secrets in the pools' namespaces that the image is pulled by."""
    worker_tls_secret: str = ""
    """Secret in the pools' namespaces with a worker's `tls.crt`, `tls.key` and `ca.crt`; else plaintext."""
    worker_settings: dict[str, str] = Field(default_factory=dict)
    """Settings of all workers by name (`python -m wan22_inference --help`), such as {"checkpoint_seconds": "10"};
    what a WanPool says goes before. New workers have them, and no worker is replaced for them."""
    worker_discovery: Literal["service", "addresses"] = "service"
    """How the gateway is told where workers are: by the name of their headless Service, which takes the cluster's DNS;
    or by their pods' addresses, for a gateway that does not ask that DNS."""
    cluster_domain: str = "cluster.local"
    """The domain of the cluster's DNS."""
    gpu_budget: int | None = Field(None, ge=0)
    """Most GPUs of all pools together; by default as many as there are."""
    resync_seconds: float = Field(15.0, gt=0, le=3600)
    """How often each pool is looked at without an event."""
    resolve_seconds: float = Field(60.0, gt=0)
    """How often a pool's tag is looked up again."""
    stall_seconds: float = Field(120.0, gt=0)
    """A load without progress for so long is given up, and its node is avoided for a while."""
    loads_per_node: int = Field(4, ge=1)
    """Most workers of a pool that load at a time, for each node that suits it: a cold page cache serves few at once."""
