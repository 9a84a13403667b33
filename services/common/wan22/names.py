"""Resource names (AIP-122): how each is written, and how a wrong one is refused."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self

from wan22.errors import InvalidRequest

_UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_MODEL = r"[a-z0-9](?:[a-z0-9.-]{0,61}[a-z0-9])?"
_TAG = r"[A-Za-z0-9._-]{1,63}"
_DIGEST = r"sha256:[0-9a-f]{64}"
DEFAULT_TAG = "latest"


def _match(pattern: str, text: str, field: str, form: str) -> re.Match[str]:
    match = re.fullmatch(pattern, text)
    if match is None:
        raise InvalidRequest(f"{field} is {text!r}: use {form}.", field=field)
    return match


def check_generation(name: str, field: str = "name") -> str:
    """Returns `generations/{uuid}` if it is one, else raises InvalidRequest."""
    return _match(rf"generations/{_UUID}", name, field, "generations/{uuid}")[0]


def check_pool(name: str, field: str = "name") -> str:
    """Returns `pools/{namespace}.{name}` if it is one, else raises InvalidRequest."""
    return _match(rf"pools/{_LABEL}\.{_LABEL}", name, field, "pools/{namespace}.{name}, each a DNS label")[0]


def check_worker(name: str, field: str = "name") -> str:
    """Returns `workers/{worker}` if it is one, else raises InvalidRequest."""
    return _match(r"workers/[a-z0-9][a-z0-9.-]{0,252}", name, field, "workers/{worker}")[0]


def check_tenant(name: str, field: str = "name") -> str:
    """Returns the tenant of `tenants/{tenant}` if it is one, else raises InvalidRequest."""
    return _match(rf"tenants/({_LABEL})", name, field, "tenants/{tenant}, a DNS label")[1]


def check_key(name: str, field: str = "name") -> str:
    """Returns the key's id of `keys/{key}` if it is one, else raises InvalidRequest."""
    return _match(r"keys/([0-9A-Za-z]{1,43})", name, field, "keys/{key}, as ListKeys shows it")[1]


def check_delivery(name: str, field: str = "name") -> str:
    """Returns the id of `deliveries/{delivery}` if it is one, else raises InvalidRequest."""
    return _match(r"deliveries/(msg_[0-9a-f]{32})", name, field, "deliveries/{delivery}, as ListDeliveries shows it")[1]


def check_media(name: str, field: str) -> str:
    """Returns `media/{64 hex digits}` if it is one, else raises InvalidRequest."""
    return _match(r"media/[0-9a-f]{64}", name, field, "media/{media}, as UploadMedia returned it")[0]


def check_digest(digest: str, field: str) -> str:
    """Returns `sha256:{64 hex digits}` if it is one, else raises InvalidRequest."""
    return _match(_DIGEST, digest, field, "sha256:{64 hex digits}")[0]


def check_model(model: str, field: str = "model") -> str:
    """Returns a model's id if it is one, else raises InvalidRequest."""
    return _match(_MODEL, model, field, "1 to 63 of a-z, 0-9, '.' and '-', a letter or digit at both ends")[0]


def check_tag(tag: str, field: str = "tags") -> str:
    """Returns a tag if it is one, else raises InvalidRequest."""
    return _match(_TAG, tag, field, "1 to 63 of A-Z, a-z, 0-9, '.', '-' and '_'")[0]


@dataclass(frozen=True)
class VersionName:
    """`models/{model}/versions/{digest}`, taken apart."""

    model: str
    digest: str

    @classmethod
    def parse(cls, name: str, field: str = "name") -> Self:
        """Raises InvalidRequest for anything else."""
        match = _match(rf"models/({_MODEL})/versions/({_DIGEST})", name, field, "models/{model}/versions/{digest}")
        return cls(match[1], match[2])

    def __str__(self) -> str:
        return f"models/{self.model}/versions/{self.digest}"


@dataclass(frozen=True)
class VersionReference:
    """`MODEL[:TAG][@sha256:DIGEST]`, taken apart; the tag is `latest` when neither is given."""

    model: str
    tag: str | None
    digest: str | None

    @classmethod
    def parse(cls, reference: str, field: str = "reference") -> Self:
        """Raises InvalidRequest for anything else."""
        pattern = rf"({_MODEL})(?::({_TAG}))?(?:@({_DIGEST}))?"
        match = _match(pattern, reference, field, "MODEL[:TAG][@sha256:DIGEST]")
        tag = match[2] or (None if match[3] else DEFAULT_TAG)
        return cls(match[1], tag, match[3])

    def __str__(self) -> str:
        return self.model + (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")
