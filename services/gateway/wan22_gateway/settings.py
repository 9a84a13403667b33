"""The gateway's settings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import parse_qs, urlsplit

from pydantic import BeforeValidator, Field, field_validator, model_validator
from pydantic_settings import SettingsConfigDict

from wan22.server_settings import ServerSettings
from wan22.settings import home
from wan22_gateway.store.opening import SCHEMES
from wan22_gateway.webhooks.addresses import parse_networks


class GatewaySettings(ServerSettings):
    """Read once, in `__main__`."""

    model_config = SettingsConfigDict(env_prefix="WAN22_GATEWAY_")

    port: int = Field(50051, ge=0, le=65535)
    """Port of the gRPC services; 0 picks a free one."""
    health_port: int = Field(51051, ge=0, le=65535)
    """Port of grpc.health.v1, plaintext."""
    keda_port: int | None = Field(None, ge=0, le=65535)
    """Port of KEDA's external scaler, which proves itself by a client certificate alone; none when absent."""
    keda_peers: str = "keda"
    """DNS names of certificates that may call it, by commas; without TLS everybody may."""
    http: Literal["on", "off"] = "on"
    """Serves HTTP, too: docs/http.md."""
    http_port: int = Field(8080, ge=0, le=65535)
    """Port of HTTP; 0 picks a free one. With the TLS files it is HTTPS, by the same certificate, and asks for none."""
    public_url: str = ""
    """URL by which clients reach the HTTP port, such as https://wan22.example.com, for signed download URLs; localhost
    when empty."""
    metrics_open: bool = False
    """Lets everybody who reaches the port read /metrics. Off, it takes the role operator, since it shows how much
    all tenants together have queued."""
    store: Path | str = Field(default_factory=lambda: home() / "gateway")
    """Folder of the SQLite store, which one gateway process owns, or the postgresql:// URL of a database, which several
    use. A URL names no password: libpq takes it from PGPASSFILE, or the next setting does. See docs/store.md."""
    store_password_file: Path | None = None
    """File of the password for PostgreSQL, such as a mounted Secret; read again at each connection."""
    scratch: Path | None = None
    """Local folder of tokenizers and of what is being received; one gateway process owns it. The store's folder by
    default, and with PostgreSQL `gateway` under WAN22_HOME."""
    results: Annotated[str, BeforeValidator(str)] = Field(default_factory=lambda: str(home() / "videos"))
    """Where finished videos, uploaded media and checkpoints lie: a folder, or s3://bucket/prefix with credentials in
    the usual AWS_ variables. See docs/results.md."""
    s3_endpoint: str = ""
    """URL of a store that is compatible with S3, in place of AWS_ENDPOINT_URL; Amazon's when both are empty."""
    s3_public_endpoint: str = ""
    """URL by which clients reach that store, for signed download URLs; as above when empty."""
    registry: str = "localhost:50052"
    """host:port of the model registry, which has each pool's tokenizer and knows what adapters are for."""
    auth: Literal["on", "off"] = "on"
    """`on`: callers need an API key, or a token of the issuer below. `off`: every caller is the tenant `default`, with
    every role; `wan22 up` says so."""
    tenants_file: Path | None = None
    """JSON file of tenants and keys, such as a mounted Secret; read again when it changes. See docs/tenants.md."""
    oidc_issuer: str = ""
    """Issuer of the OIDC tokens that are taken beside API keys; none are when empty."""
    oidc_audience: str = ""
    """Audience that tokens must name. Required with an issuer: a token for somebody else must not count here."""
    oidc_jwks: str = ""
    """The issuer's JSON Web Key Set: a file, or an https:// address. Required with an issuer."""
    oidc_tenant_claim: str = "tenant"
    """Claim that names the tenant."""
    oidc_roles_claim: str = "roles"
    """Claim that lists roles: user, operator, admin. A token without it is a user's."""
    queue_limit: int = Field(1000, ge=1)
    """Most QUEUED generations; beyond it CreateGeneration is RESOURCE_EXHAUSTED. Bounds the wait, not the memory."""
    video_retention_days: float = Field(0.0, ge=0.0, le=3660.0)
    """How long a finished video is kept; 0 until its generation is deleted: nobody's videos should vanish unasked.
    A request may ask for less."""
    generation_retention_days: float = Field(0.0, ge=0.0, le=3660.0)
    """How long a generation is kept after its end, its prompt, events and video with it; 0 until it is deleted."""
    media_retention_days: float = Field(30.0, ge=0.0, le=3660.0)
    """How long an uploaded image is kept since its last upload, while no generation refers to it; 0 for good."""
    lease_seconds: float = Field(15.0, ge=1.0)
    """How long an attempt stays owned without renewal: three renewals, so that one slow fsync is no takeover."""
    worker_lease_seconds: float = Field(15.0, ge=1.0)
    """How long a worker that does not answer counts as alive: it is asked every 2 s."""
    resume_wait_seconds: float = Field(60.0, ge=0.0)
    """How long a generation with a checkpoint waits for a worker of equal numerics before it starts anew elsewhere:
    longer than a worker's restart, much shorter than the work that is saved."""
    webhook_private_networks: str = ""
    """Networks inside which webhooks may lead, by commas, such as 10.0.0.0/8; by default none that is not public."""
    webhook_ca: Path | None = None
    """PEM file of an authority that receivers' certificates may be of, beside the public ones."""
    prompt_hook: str = ""
    """https:// address that is asked about each request's texts before it is queued, and may replace or refuse them:
    docs/prompt-hook.md. None by default."""
    prompt_hook_secret_file: Path | None = None
    """File of the `whsec_…` secret that the hook verifies our calls with. Required with it."""
    prompt_hook_seconds: float = Field(5.0, gt=0.0, le=60.0)
    """How long the hook may take."""
    prompt_hook_open: bool = False
    """Takes requests unchecked while the hook does not answer; off, they are UNAVAILABLE."""
    reflection: bool = False
    """Serves gRPC reflection, for grpcurl; off by default because it shows the whole API."""

    @field_validator("results")
    @classmethod
    def _check_results(cls, location: str) -> str:
        parts = urlsplit(location)
        if "://" in location and (parts.scheme != "s3" or not parts.netloc or parts.query):
            raise ValueError("use a folder, or s3://bucket/prefix")
        return location

    @field_validator("s3_endpoint", "s3_public_endpoint", "public_url")
    @classmethod
    def _check_endpoint(cls, url: str) -> str:
        if url and not url.startswith(("http://", "https://")):
            raise ValueError("use a URL, such as https://videos.example.com")
        return url

    @field_validator("store")
    @classmethod
    def _check_store(cls, store: Path | str) -> Path | str:
        if isinstance(store, Path) or not store.startswith(SCHEMES):
            return Path(store)
        parts = urlsplit(store)
        if parts.password is not None or "password" in parse_qs(parts.query):
            raise ValueError("a password does not belong into the URL, where others see it: use store_password_file")
        return store

    @field_validator("webhook_private_networks")
    @classmethod
    def _check_networks(cls, networks: str) -> str:
        parse_networks(networks)
        return networks

    @property
    def local_folder(self) -> Path:
        """Where this process keeps what no other one needs."""
        if self.scratch is not None:
            return self.scratch
        return self.store if isinstance(self.store, Path) else home() / "gateway"

    @property
    def store_name(self) -> str:
        """The store in a log: a URL without its parameters, which may name files and options."""
        return str(self.store).partition("?")[0]

    @model_validator(mode="after")
    def _check_prompt_hook(self) -> Self:
        if self.prompt_hook and self.prompt_hook_secret_file is None:
            raise ValueError("prompt_hook needs prompt_hook_secret_file")
        if self.prompt_hook and not self.prompt_hook.startswith("https://"):
            raise ValueError("prompt_hook must be an https:// address")
        return self

    @model_validator(mode="after")
    def _check_oidc(self) -> Self:
        if self.oidc_issuer and not (self.oidc_audience and self.oidc_jwks):
            raise ValueError("oidc_issuer needs oidc_audience and oidc_jwks")
        if self.oidc_jwks.startswith("http://"):
            raise ValueError("oidc_jwks must be a file or an https:// address")
        return self
