"""The registry's settings."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from wan22.server_settings import ServerSettings
from wan22.settings import home


class RegistrySettings(ServerSettings):
    """Read once, in `__main__`."""

    model_config = SettingsConfigDict(env_prefix="WAN22_REGISTRY_")

    port: int = Field(50052, ge=0, le=65535)
    """Port of ModelService; 0 picks a free one."""
    tls_peers: str = "gateway,worker,node-cache,operator,publisher,admin"
    """DNS names of certificates that may read, by commas; without TLS everybody may do everything."""
    tls_publishers: str = "publisher,admin"
    """DNS names of certificates that may push blobs, publish versions and move tags."""
    tls_admins: str = "admin"
    """DNS names of certificates that may pin, unpin, delete, verify, and approve adapters or end that."""
    health_port: int = Field(51052, ge=0, le=65535)
    """Port of grpc.health.v1, plaintext."""
    http_port: int | None = Field(None, ge=0, le=65535)
    """Port of /metrics, /health and /ready, plain HTTP; 0 picks a free one. Without it there is none."""
    root: Path = Field(default_factory=lambda: home() / "registry")
    """Folder of the OCI layout; one registry process owns it."""
    quota_bytes: int | None = Field(None, gt=0)
    """Most bytes of blobs, pushes under way included; without it the disk is the bound."""
    scrub_bytes_per_second: int = Field(50_000_000, ge=0)
    """How fast everything is re-read to find damage: little to a disk, and 70 GB in 23 minutes. 0 re-reads nothing."""
    scrub_interval_hours: float = Field(24.0, gt=0)
    """Pause between two readings of everything."""
    reflection: bool = False
    """Serves gRPC reflection, for grpcurl; off by default because it shows the whole API."""
