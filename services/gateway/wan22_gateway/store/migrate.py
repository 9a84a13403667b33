"""Brings a store to this version's schema by alembic; refuses one that is newer."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.util.exc import CommandError
from sqlalchemy import create_engine, inspect, text

from wan22.errors import FailedPrecondition, Reason


def upgrade(url: str) -> None:
    """Runs the migrations that the store lacks. Raises FailedPrecondition (STORE_TOO_NEW) when it has one we lack."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.set_main_option("sqlalchemy.url", url.replace("%", "%%"))
    current = _current(url)
    if current is not None:
        try:
            ScriptDirectory.from_config(config).get_revision(current)
        except CommandError:
            message = (
                f"The store has schema {current}, which this version of wan22 does not know: run the newer version."
            )
            raise FailedPrecondition(message, reason=Reason.STORE_TOO_NEW) from None
    command.upgrade(config, "head")


def _current(url: str) -> str | None:
    engine = create_engine(url)
    try:
        with engine.connect() as connection:
            if not inspect(connection).has_table("alembic_version"):
                return None
            version: str | None = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
            return version
    finally:
        engine.dispose()
