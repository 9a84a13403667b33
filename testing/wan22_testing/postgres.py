"""A real PostgreSQL server process of this machine's own programs: started, killed, started again."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from pathlib import Path
from typing import Self
from urllib.parse import quote

import psycopg

from wan22_testing.service_process import free_port

USER = "wan22"
SERVER_ACCOUNTS = ("postgres", "nobody")
"""Who runs the server where we are root: it refuses to be."""


def programs() -> Path | None:
    """The folder of PostgreSQL's programs; None where it is not installed."""
    newest = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    found = str(newest[-1]) if newest else shutil.which("initdb")
    return Path(found).resolve().parent if found else None


class PostgresServer:
    """A cluster of its own under a temporary folder, durable as in production; use as a context manager.

    Everybody on the machine may enter by its Unix socket; by TCP the password is needed.
    """

    def __init__(self) -> None:
        found = programs()
        if found is None:
            raise FileNotFoundError("PostgreSQL is not installed: initdb is not found")
        self._programs = found
        self._account = next((name for name in SERVER_ACCOUNTS if _exists(name)), None) if os.geteuid() == 0 else None
        self.folder = Path(tempfile.mkdtemp(prefix="wan22-postgres-"))  # short: it is part of a socket's name
        self.port = free_port()
        self.password = uuid.uuid4().hex
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        password_file = self.folder / "password"
        password_file.write_text(self.password)
        if self._account is not None:
            shutil.chown(self.folder, self._account)
            shutil.chown(password_file, self._account)
        arguments = ["--username", USER, "--auth-local", "trust", "--auth-host", "scram-sha-256"]
        arguments += ["--pwfile", str(password_file), "--encoding", "UTF8", "--locale", "C.UTF-8", "--no-instructions"]
        self._run("initdb", "-D", str(self.folder / "data"), *arguments)
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def start(self) -> None:
        """Starts the server and returns when it takes connections, its recovery from a crash included."""
        deadline = time.monotonic() + 60
        while True:
            with (self.folder / "log").open("ab") as log:
                settings = ["-k", str(self.folder), "-p", str(self.port), "-c", "listen_addresses=127.0.0.1"]
                self._process = subprocess.Popen(
                    [self._programs / "postgres", "-D", self.folder / "data", *settings],
                    stdout=log,
                    stderr=log,
                    user=self._account,
                )
            while self._process.poll() is None:
                if self._answers():
                    return
                time.sleep(0.02)  # a server has no event to wait for
            # The children of a killed server hold its memory for a moment, and a new one refuses to start beside them.
            if time.monotonic() > deadline:
                raise AssertionError(f"PostgreSQL does not start:\n{(self.folder / 'log').read_text()[-4000:]}")
            time.sleep(0.05)

    def kill(self) -> None:
        """SIGKILL: whatever was not durable is gone."""
        self._signal(signal.SIGKILL)

    def stop(self) -> None:
        """SIGINT: ends all connections, and the server in order."""
        self._signal(signal.SIGINT)

    def url(self, database: str) -> str:
        """The URL of a database, by the Unix socket."""
        return f"postgresql://{USER}@/{database}?host={quote(str(self.folder), safe='')}&port={self.port}"

    def tcp_url(self, database: str) -> str:
        """The URL of a database by TCP, without the password that it needs."""
        return f"postgresql://{USER}@127.0.0.1:{self.port}/{database}"

    def create(self, template: str = "template1") -> str:
        """Makes a database, a copy of another one that nobody is connected to, and returns its name."""
        name = f"test_{uuid.uuid4().hex[:12]}"
        self.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        return name

    def drop(self, database: str) -> None:
        """Removes a database, whoever is connected to it."""
        self.execute(f"DROP DATABASE {database} WITH (FORCE)")

    def execute(self, statement: str) -> None:
        """Runs one statement outside of any transaction, in the database that every server has."""
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(statement.encode())

    def _answers(self) -> bool:
        try:
            psycopg.connect(self.url("postgres"), connect_timeout=5).close()
        except psycopg.OperationalError:
            return False
        return True

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(self._programs / program), *arguments]
        subprocess.run(command, check=True, capture_output=True, user=self._account)

    def _signal(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(number)
            process.wait(30)


def _exists(account: str) -> bool:
    try:
        pwd.getpwnam(account)
    except KeyError:
        return False
    return True
