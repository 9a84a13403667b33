"""The worker's settings."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Literal

from pydantic import ByteSize, Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError
from pydantic_settings import SettingsConfigDict

from wan22.errors import InvalidRequest
from wan22.names import VersionName, VersionReference, check_pool, check_worker
from wan22.server_settings import ServerSettings
from wan22.settings import home
from wan22_inference.engine.options import TextEncoderPlace


class WorkerSettings(ServerSettings):
    """Read once, in `__main__`."""

    model_config = SettingsConfigDict(env_prefix="WAN22_WORKER_")

    port: int = Field(50061, ge=0, le=65535)
    """Port of InferenceService; 0 picks a free one."""
    tls_peers: str = "gateway"
    """DNS names of certificates that may call it, by commas; without TLS everybody may."""
    health_port: int = Field(51061, ge=0, le=65535)
    """Port of grpc.health.v1, plaintext; 0 picks a free one."""
    name: str = Field(default_factory=lambda: f"workers/{socket.gethostname().lower()}")
    """Format: workers/{worker}. By default the host's name, which is the pod's on Kubernetes."""
    uid: str = ""
    """Identity of the pod, or of the supervised slot; the name when empty."""
    pool: str
    """The pool it belongs to. Format: pools/{namespace}.{name}. Required."""
    model: str
    """What to load: MODEL[:TAG][@sha256:DIGEST], or models/{model}/versions/{digest}. Required."""
    registry: str = "localhost:50052"
    """host:port of the model registry."""
    cache: Path = Field(default_factory=lambda: home() / "cache")
    """Folder of model files, shared by the machine's workers."""
    cache_quota_bytes: int | None = Field(None, gt=0)
    """Most bytes of it: what was used longest ago goes; without it the disk is the bound."""
    scratch: Path = Field(default_factory=lambda: home() / "scratch")
    """Folder for unreleased results; each worker uses a folder of its own in it, and empties that at its start."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N; auto is the first CUDA device where there is one, else the CPU."""
    threads: int = Field(1, ge=1, le=1024)
    """Threads of a computation on the CPU. Fixed, since it may change bits; 1 leaves the cores to other workers."""
    text_encoder: TextEncoderPlace = TextEncoderPlace.DEVICE
    """Where the text encoder is: `device`; `host`, which frees its 11 GB of the device between texts at the cost of a
    copy; `cpu`, which computes it there."""
    vram_limit: ByteSize | None = None
    """Most of the device that may be used, contexts and libraries counted, such as 12GiB; by default all of it. What
    does not fit beside a generation waits in host memory and comes block by block."""
    vae_decode_dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    """What the VAE decodes in; auto is bfloat16 on a CUDA device and float32 on a CPU. It encodes in float32."""
    attention8: bool = False
    """Computes the DiT's self-attention in float8 where the card can (Hopper, with the package fa3-fwd): a fifth to a
    quarter faster, and less exact. It changes the videos, so that it is among their recipes' numerics."""
    mag_cache: float | None = Field(None, gt=0, le=1)
    """Reuses what a step's blocks computed in the next ones while MagCache's estimate of the error is below this, such
    as 0.06: fewer forwards, other videos. By default every step is computed."""
    guided_share: float = Field(1.0, ge=0, le=1)
    """Of each expert's steps the share, from the first on, that is guided; the others save the forward of the negative
    prompt, and give other videos."""
    vae_tile: int | None = Field(None, ge=4, le=96)
    """Latents a side of the tiles in which the VAE works, always; by default whole frames where these fit."""
    embedding_cache_bytes: int = Field(256 << 20, ge=0)
    """Host memory for the embeddings of texts used before, 4 MB each at full size; 0 keeps none."""
    adapter_cache_bytes: int = Field(2 << 30, ge=0)
    """Host memory for LoRA adapters used before, 0.6 GB each at rank 64 and full size; 0 keeps none."""
    checkpoint_seconds: float = Field(30.0, ge=0)
    """Seconds between checkpoints, from which a generation goes on elsewhere when this worker is lost; 0: after
    each step. A checkpoint of a 480p video has 34 MB, and costs the computation nothing."""
    orphan_grace: float = Field(600.0, gt=0)
    """Seconds for which an outcome is kept when nobody follows or releases it: time for a gateway to come back."""
    drain_seconds: float = Field(600.0, ge=0)
    """Seconds that a stopping worker gives its attempt to end and to be released."""
    reflection: bool = False
    """Serves gRPC reflection, for grpcurl; off by default because it shows the whole API."""

    @field_validator("name", "pool", "model")
    @classmethod
    def _check_name(cls, value: str, info: ValidationInfo) -> str:
        try:
            if info.field_name == "name":
                return check_worker(value)
            if info.field_name == "pool":
                return check_pool(value)
            parse = VersionName.parse if value.startswith("models/") else VersionReference.parse
            return str(parse(value))
        except InvalidRequest as error:
            what_to_do = error.message.partition(": ")[2].rstrip(".")
            raise PydanticCustomError("name", "{what_to_do}", {"what_to_do": what_to_do}) from error
