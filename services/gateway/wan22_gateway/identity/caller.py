"""Who a call comes from, as servicers see it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field

from wan22.errors import PermissionDenied, Reason
from wan22.v1 import admin_pb2

log = logging.getLogger("wan22_gateway.audit")
USER, OPERATOR, ADMIN = admin_pb2.USER, admin_pb2.OPERATOR, admin_pb2.ADMIN
SERVICE_ROLES: Mapping[str, admin_pb2.Role.ValueType | None] = {
    "wan22.v1.GenerationService": USER,
    "wan22.v1.PoolService": OPERATOR,
    "wan22.v1.AdminService": ADMIN,
    "wan22.v1.WebhookService": USER,
    "externalscaler.ExternalScaler": OPERATOR,
    "grpc.reflection.v1alpha.ServerReflection": None,
}
"""Which role each service needs, None no more than credentials; one that is not listed is an administrator's."""


@dataclass(frozen=True, slots=True)
class Caller:
    """A tenant, and what may be done in its name."""

    tenant: str
    roles: frozenset[int]
    """admin_pb2.Role, by number."""
    credential: str = field(default="no credentials", compare=False)
    """By what it was let in, for the log: a key's name, or that it was a token."""

    def check(self, method: str) -> None:
        """Raises PermissionDenied (ROLE_MISSING) unless the caller may call `/package.Service/Method`."""
        needed = SERVICE_ROLES.get(method.rpartition("/")[0].removeprefix("/"), ADMIN)
        if needed is None or needed in self.roles or ADMIN in self.roles:
            return
        role = admin_pb2.Role.Name(needed)
        text = f"{method} needs the role {role}: use a key or token of tenant {self.tenant} that has it."
        raise PermissionDenied(text, reason=Reason.ROLE_MISSING, metadata={"role": role})


_caller: ContextVar[Caller] = ContextVar("caller")
EVERYBODY = Caller("default", frozenset({USER, OPERATOR, ADMIN}))
"""Who every caller is while `auth` is off."""


def caller() -> Caller:
    """Who the present call comes from."""
    return _caller.get()


def audit(what: str) -> None:
    """Logs a change that an administrator makes, and by whom."""
    who = caller()
    log.info("%s By tenants/%s with %s.", what, who.tenant, who.credential)


def tenant_or(otherwise: str) -> str:
    """The tenant of the present call, or a word for a call that nobody was let in with."""
    who = _caller.get(None)
    return otherwise if who is None else who.tenant


def is_called_by(who: Caller) -> None:
    """Sets who the present call comes from."""
    _caller.set(who)
