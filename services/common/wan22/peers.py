"""Who may call a service: DNS names of client certificates (RFC 5280, 4.2.1.6), and for some methods fewer of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from wan22.errors import PermissionDenied, Reason, Unauthenticated

AuthContext = Mapping[str, Iterable[bytes]]
"""What gRPC says of a connection."""


@dataclass(frozen=True, slots=True)
class Peers:
    """Names of certificates that may call a service."""

    names: frozenset[str]
    only: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """By a method's own name, those that may call it in place of `names`."""

    @classmethod
    def of(cls, names: str) -> Peers:
        """Those of a setting, which are parted by commas."""
        return cls(names_in(names))

    def check(self, method: str, auth_context: AuthContext) -> None:
        """Raises unless a peer's certificate may call `/package.Service/Method`: Unauthenticated, PermissionDenied."""
        _, _, short = method.rpartition("/")
        allowed = self.only.get(short)
        what = "this service" if allowed is None else short
        allowed = self.names if allowed is None else allowed
        names = names_of(auth_context)
        if not names:
            text = f"This service wants a client certificate with one of the names {_told(allowed)}."
            raise Unauthenticated(text, reason=Reason.NO_CREDENTIALS)
        if not names & allowed:
            text = f"A certificate of {_told(names)} may not call {what}: {_told(allowed)} may."
            raise PermissionDenied(text, reason=Reason.ROLE_MISSING)


def names_in(setting: str) -> frozenset[str]:
    """The names of a setting, which are parted by commas."""
    return frozenset(name.strip() for name in setting.split(",") if name.strip())


def names_of(auth_context: AuthContext) -> frozenset[str]:
    """The names of a peer's certificate; none where it has shown none."""
    return frozenset(name.decode() for name in auth_context.get("x509_subject_alternative_name", ()))


def _told(names: frozenset[str]) -> str:
    return ", ".join(sorted(names)) or "nobody"
