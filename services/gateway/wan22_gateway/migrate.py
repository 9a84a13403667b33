"""Migrates a PostgreSQL store before a version is rolled out: `python -m wan22_gateway.migrate --store URL`.

It takes the gateway's own settings, so that a Kubernetes Job runs it with what the gateway's pods have.
"""

from __future__ import annotations

import asyncio
import logging
import sys

from wan22.errors import InvalidRequest
from wan22.program import run_service
from wan22_gateway.settings import GatewaySettings
from wan22_gateway.store.opening import check_psycopg

log = logging.getLogger(__name__)


async def run(settings: GatewaySettings) -> None:
    """Brings the store to this version's schema; returns at once when that is done already.

    Raises FailedPrecondition when it is too new, Unavailable when it cannot be reached or a table stays in use.
    """
    if not isinstance(settings.store, str):
        text = f"--store is {settings.store}: a folder is migrated when the gateway starts; name postgresql://…"
        raise InvalidRequest(text, field="store")
    check_psycopg()
    from wan22_gateway.store.postgres import migrate_postgres  # noqa: PLC0415  # it needs psycopg, which is an extra

    schema = await asyncio.to_thread(migrate_postgres, settings.store, settings.store_password_file)
    log.info("The store has schema %s.", schema)


def main() -> int:
    """Returns the exit code."""
    return run_service("wan22_gateway.migrate", "gateway", GatewaySettings, run)


if __name__ == "__main__":
    sys.exit(main())
