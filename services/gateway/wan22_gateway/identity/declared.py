"""Tenants and keys from a file, such as a mounted Secret: read at the start, and again whenever it changes."""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from sqlalchemy import delete, select, update

from wan22.errors import FailedPrecondition, Reason
from wan22.v1 import admin_pb2
from wan22_gateway.identity.keys import digest, id_of, is_well_formed
from wan22_gateway.store import keys, tenants
from wan22_gateway.store.database import Database, Transaction
from wan22_gateway.store.schema import keys as key_table
from wan22_gateway.store.schema import tenants as tenant_table
from wan22_gateway.store.tenants import Limits

log = logging.getLogger(__name__)
LOOK_SECONDS = 2.0
"""How soon a change of the file takes effect."""
Name = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")]
ROLES = {"user": admin_pb2.USER, "operator": admin_pb2.OPERATOR, "admin": admin_pb2.ADMIN}


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class DeclaredTenant(_Entry):
    """A tenant and its limits."""

    name: Name
    weight: float = Field(1.0, ge=0.01, le=1000)
    max_queued: int | None = Field(None, ge=0)
    max_running: int | None = Field(None, ge=1)
    gpu_seconds_per_day: float | None = Field(None, ge=0, allow_inf_nan=False)
    max_media_bytes: int | None = Field(None, ge=0, lt=1 << 63)


class DeclaredKey(_Entry):
    """A key, as it is or by its digest."""

    tenant: Name
    roles: list[Literal["user", "operator", "admin"]] = Field(min_length=1)
    key: str | None = None
    id: str | None = Field(None, pattern=r"^[0-9A-Za-z]{1,43}$")
    sha256: str | None = Field(None, pattern=r"^[0-9a-f]{64}$")
    description: str = Field("", max_length=200)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.key is None) == (self.sha256 is None) or (self.sha256 is None) != (self.id is None):
            raise ValueError("give either key, or id and sha256")
        if self.key is not None and not is_well_formed(self.key):
            raise ValueError("key is no wan22_ key: make one by `wan22 admin keys new`")
        return self


class Declared(_Entry):
    """The whole file, JSON."""

    tenants: list[DeclaredTenant]
    keys: list[DeclaredKey]

    @model_validator(mode="after")
    def _check(self) -> Self:
        names = {tenant.name for tenant in self.tenants}
        strangers = sorted({key.tenant for key in self.keys} - names)
        if strangers:
            raise ValueError(f"keys name tenants that are not in the file: {', '.join(strangers)}")
        return self


def read(path: Path) -> Declared:
    """Reads the file. Raises FailedPrecondition (BAD_SETTING) saying what is wrong with it, without its contents."""
    try:
        return Declared.model_validate(json.loads(path.read_bytes()))
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise FailedPrecondition(f"{path} is refused: {problems}.", reason=Reason.BAD_SETTING) from None
    except (OSError, ValueError) as error:
        what = error.strerror if isinstance(error, OSError) else "it is no JSON"
        raise FailedPrecondition(f"{path} cannot be read: {what}.", reason=Reason.BAD_SETTING) from None


def apply(tx: Transaction, declared: Declared) -> None:
    """Makes the store's declared tenants and keys those of the file; others are not touched.

    A tenant that has left the file keeps its generations, and becomes an ordinary one.
    """
    names = {tenant.name for tenant in declared.tenants}
    left = tenant_table.c.declared & tenant_table.c.name.not_in(names)
    tx.execute(update(tenant_table).where(left).values(declared=False))
    for tenant in declared.tenants:
        tenants.apply(tx, tenant.name, Limits(**tenant.model_dump(exclude={"name"})), declared=True)
    tx.execute(delete(key_table).where(key_table.c.declared))
    tx.notify("keys")
    for key in declared.keys:
        found = key.sha256 or digest(key.key or "")
        if tx.execute(select(key_table.c.id).where(key_table.c.digest == found)).one_or_none() is not None:
            continue  # made by an administrator before
        keys.add(
            tx,
            digest=found,
            key_id=key.id or id_of(key.key or ""),
            tenant=key.tenant,
            roles=[ROLES[role] for role in key.roles],
            description=key.description,
            expire_time=None,
            declared=True,
        )


async def follow(database: Database, path: Path, declared: Declared) -> None:
    """Looks at the file for ever, and applies what is new in it; a bad one is logged, and the last good one stays."""
    complained = ""
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        try:
            now = await asyncio.to_thread(read, path)
        except FailedPrecondition as error:
            if error.message != complained:
                log.warning("%s What was read before stays in force.", error.message)
            complained = error.message
            continue
        complained = ""
        if now != declared:
            await database.write(apply, now)
            declared = now
            log.info("%s has %d tenants and %d keys now.", path, len(now.tenants), len(now.keys))
