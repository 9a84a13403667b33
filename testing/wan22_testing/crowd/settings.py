"""The settings of a crowd."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from wan22.server_settings import ServerSettings


class CrowdSettings(ServerSettings):
    """Read once, in `__main__`."""

    model_config = SettingsConfigDict(env_prefix="WAN22_CROWD_")

    port: int = Field(0, ge=0, le=65535)
    """Port of the PoolService that has the played workers."""
    health_port: int = Field(0, ge=0, le=65535)
    """Port of grpc.health.v1; ready once all nodes are registered."""
    kubeconfig: Path
    """Whose nodes they are. Required."""
    folder: Path
    """Where the pods' volumes lie. Required."""
    nodes: int = Field(1, ge=1)
    """How many nodes there are, named crowd-0 and on."""
    gpus: int = Field(250, ge=0)
    """Of each, which has room for as many pods."""
    heartbeat_seconds: float = Field(5.0, gt=0)
    """Between two renewals of a node's lease."""
    load_seconds: float = Field(1.0, ge=0)
    """How long a played worker loads."""
