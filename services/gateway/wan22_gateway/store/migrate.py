"""Brings a store to this version's schema by alembic, and says which schemas this version can serve.

Schema N serves code N and N-1: a migration only adds what code N-1 can ignore (expand), and what code N-1 still used is
removed one version later (contract). So a store is migrated before the processes are replaced, and code can be rolled
back by one version without touching the store.
"""

from __future__ import annotations

import os
import uuid
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, insert, inspect, select, text

from wan22.errors import FailedPrecondition, Reason
from wan22_gateway.store.schema import identity

SCRIPTS = Path(__file__).parent / "migrations"


def upgrade(engine: Engine, scripts: Path = SCRIPTS) -> str:
    """Runs the migrations that a store lacks, in one transaction, while no other process does; returns its schema.

    Raises FailedPrecondition (STORE_TOO_NEW) when it has one more than this version can serve.
    """
    config = _config(scripts)
    with engine.begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(hashtext('wan22 migration'))"))
        if not is_current(connection, scripts):
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
        if connection.execute(select(identity)).one_or_none() is None:
            connection.execute(insert(identity).values(store_epoch=str(uuid.uuid4()), page_key=os.urandom(32)))
        return revision(connection)


def is_current(connection: Connection, scripts: Path = SCRIPTS) -> bool:
    """Whether this version can serve the store as it is; False while it lacks migrations.

    Raises FailedPrecondition (STORE_TOO_NEW) when it never will.
    """
    found, head = revision(connection), newest(scripts)
    if not found:
        return False
    if not found.isdigit() or int(found) > int(head) + 1:
        message = f"The store has schema {found}, and this version of wan22 serves {head} and the one after it"
        raise FailedPrecondition(f"{message}: run the newer version.", reason=Reason.STORE_TOO_NEW)
    return int(found) >= int(head)


def revision(connection: Connection) -> str:
    """The schema's number; empty in an empty store."""
    if not inspect(connection).has_table("alembic_version"):
        return ""
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar() or ""


def newest(scripts: Path = SCRIPTS) -> str:
    """The number of the newest schema that this version knows."""
    return ScriptDirectory.from_config(_config(scripts)).get_current_head() or ""


def _config(scripts: Path) -> Config:
    config = Config()
    config.set_main_option("script_location", str(scripts).replace("%", "%%"))
    return config
