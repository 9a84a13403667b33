"""The node cache's settings."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from wan22.server_settings import ServerSettings
from wan22.settings import home


class NodeCacheSettings(ServerSettings):
    """Read once, in `__main__`."""

    model_config = SettingsConfigDict(env_prefix="WAN22_CACHE_")

    port: int = Field(50053, ge=0, le=65535)
    """Port of CacheService; 0 picks a free one."""
    tls_peers: str = "operator,admin"
    """DNS names of certificates that may call it, by commas; without TLS everybody may."""
    health_port: int = Field(51053, ge=0, le=65535)
    """Port of grpc.health.v1, plaintext."""
    http_port: int | None = Field(None, ge=0, le=65535)
    """Port of /metrics, /health and /ready, plain HTTP; 0 picks a free one. Without it there is none."""
    root: Path = Field(default_factory=lambda: home() / "cache")
    """The cache folder, which workers of this node use too."""
    registry: str = "localhost:50052"
    """host:port of the model registry."""
    prefetch: list[str] = Field(default_factory=list)
    """Versions to keep besides those that callers ask for: MODEL[:TAG][@sha256:DIGEST], or their names. The flag may be
    repeated; the variable is a JSON list."""
    quota_bytes: int | None = Field(None, gt=0)
    """Most bytes of blobs; without it the disk is the bound."""
    retry_seconds: float = Field(30.0, gt=0)
    """Pause before a version that could not be pulled is tried again, and between two looks at the quota."""
    verify_bytes_per_second: int = Field(50_000_000, ge=0)
    """How fast what is kept is re-read to find damage: little to a disk, 70 GB in 23 minutes. 0 re-reads nothing."""
    verify_interval_hours: float = Field(24.0, gt=0)
    """Pause between two readings of everything."""
    reflection: bool = False
    """Serves gRPC reflection, for grpcurl; off by default because it shows the whole API."""
