"""`oci://HOST[:PORT]/REPOSITORY[:TAG][@sha256:DIGEST]`, taken apart."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self

from wan22.errors import InvalidRequest

SCHEME = "oci://"
DEFAULT_TAG = "latest"
_HOST = r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:]+\])(?::[0-9]{1,5})?"
_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_TAG = r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}"
_DIGEST = r"sha256:[0-9a-f]{64}"
_REFERENCE = re.compile(rf"oci://({_HOST})/({_PART}(?:/{_PART})*)(?::({_TAG}))?(?:@({_DIGEST}))?")
_LOCAL = re.compile(r"(?:localhost|127(?:\.[0-9]{1,3}){3}|\[::1\])(?::[0-9]+)?")


@dataclass(frozen=True)
class OciReference:
    """Where an artifact is in a registry; the specification's names for the parts."""

    host: str
    """With its port, if one is given."""
    repository: str
    tag: str | None
    """`latest` where neither tag nor digest is given."""
    digest: str | None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises InvalidRequest for anything else."""
        match = _REFERENCE.fullmatch(text)
        if match is None or len(match[2]) > 255:
            form = "oci://HOST[:PORT]/REPOSITORY[:TAG][@sha256:DIGEST], the repository in lower case"
            raise InvalidRequest(f"reference is {text[:300]!r}: use {form}.", field="reference")
        return cls(match[1], match[2], match[3] or (None if match[4] else DEFAULT_TAG), match[4])

    @property
    def manifest(self) -> str:
        """What the registry finds the manifest by: the digest, if there is one, which no other push can change."""
        return self.digest or self.tag or DEFAULT_TAG

    @property
    def is_local(self) -> bool:
        """Whether the host is this machine, which is asked by plain HTTP."""
        return _LOCAL.fullmatch(self.host) is not None

    def __str__(self) -> str:
        tag, digest = f":{self.tag}" if self.tag else "", f"@{self.digest}" if self.digest else ""
        return f"{SCHEME}{self.host}/{self.repository}{tag}{digest}"
