"""Opens the store that the settings name: a folder, or a PostgreSQL database."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from wan22.errors import FailedPrecondition, Reason
from wan22_gateway.store.database import Database
from wan22_gateway.store.sqlite import SqliteDatabase

SCHEMES = ("postgresql://", "postgres://")


async def open_store(store: Path | str, password_file: Path | None) -> Database:
    """The store, ready to be used. Raises FailedPrecondition: in use, too new, too old, or psycopg is not installed."""
    if isinstance(store, Path):
        return SqliteDatabase(store)
    check_psycopg()
    from wan22_gateway.store.postgres import open_postgres  # noqa: PLC0415  # it needs psycopg, which is an extra

    return await open_postgres(store, password_file)


def check_psycopg() -> None:
    """Raises FailedPrecondition (BAD_SETTING) where PostgreSQL cannot be spoken to."""
    if find_spec("psycopg") is None:
        text = "--store names a PostgreSQL database, but psycopg is not installed: install wan22[postgres]."
        raise FailedPrecondition(text, reason=Reason.BAD_SETTING)
