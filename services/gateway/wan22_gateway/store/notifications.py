"""Wake-ups between gateway processes by PostgreSQL's NOTIFY and LISTEN."""

from __future__ import annotations

import logging
import os
import select
import threading
from collections.abc import Callable, Iterable
from typing import Any

import psycopg
from sqlalchemy import Connection, text

log = logging.getLogger(__name__)
CHANNEL = "wan22"
PAYLOAD_BYTES = 7000
"""Most bytes of topics in one notification; PostgreSQL takes 8000."""
CHECK_SECONDS = 10.0
"""How often a silent connection is asked whether it is still one."""
RETRY_SECONDS = 0.5
"""Pause before the next try to connect."""


def announce(connection: Connection, sender: str, topics: Iterable[str]) -> None:
    """Tells all processes but the sender of topics, once the transaction is committed."""
    payloads, part = [], ""
    for topic in sorted(topics):
        if len(part) + len(topic) > PAYLOAD_BYTES:
            payloads.append(part)
            part = ""
        part += f"\n{topic}"
    if part:
        payloads.append(part)
    for payload in payloads:
        connection.execute(
            text("SELECT pg_notify(:channel, :payload)"), {"channel": CHANNEL, "payload": sender + payload}
        )


class Notifications:
    """A thread that calls `heard` with the topics that other processes announce.

    After each start of listening it is called with None, since what was announced before was missed. A lost connection
    is opened again for ever.
    """

    def __init__(
        self, connect: Callable[[], psycopg.Connection[Any]], own_name: str, heard: Callable[[set[str] | None], None]
    ) -> None:
        self._connect = connect
        self._own_name = own_name
        self._heard = heard
        self.began = threading.Event()
        """Set once it has listened."""
        self._stopped = threading.Event()
        self._wake, self._stop = os.pipe()
        self._thread = threading.Thread(target=self._run, name="store-listener")
        self._thread.start()

    def close(self) -> None:
        """Stops listening."""
        self._stopped.set()
        os.write(self._stop, b".")
        self._thread.join()
        os.close(self._wake)
        os.close(self._stop)

    def _run(self) -> None:
        lost = False
        while not self._stopped.is_set():
            try:
                with self._connect() as connection:
                    connection.autocommit = True
                    connection.execute(f"LISTEN {CHANNEL}")
                    if lost:
                        log.info("Connected to the store again.")
                    lost = False
                    self._heard(None)
                    self.began.set()
                    self._listen(connection)
            except (psycopg.Error, OSError) as error:
                if not lost:
                    log.warning("The store's wake-ups are cut off: %s", str(error).partition("\n")[0])
                lost = True
                self._stopped.wait(RETRY_SECONDS)

    def _listen(self, connection: psycopg.Connection[Any]) -> None:
        while not self._stopped.is_set():
            readable, _, _ = select.select([connection.fileno(), self._wake], [], [], CHECK_SECONDS)
            if not readable:
                connection.execute("SELECT 1")
            for notification in connection.notifies(timeout=0):
                sender, *topics = notification.payload.split("\n")
                if sender != self._own_name:
                    self._heard(set(topics))
