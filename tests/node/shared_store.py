"""A database and a bucket that gateways share: servers of this machine, which pods reach by the control plane."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import psycopg

from wan22_testing.cluster.kubectl import Kubectl
from wan22_testing.nodes.layout import CONTROL_ADDRESS
from wan22_testing.nodes.outlet import Outlet
from wan22_testing.postgres import USER, PostgresServer
from wan22_testing.s3_server import BUCKET, S3Server

PASSWORD, KEYS = "store-password", "bucket-keys"
THERE = [{"ipBlock": {"cidr": f"{CONTROL_ADDRESS}/32"}}]


@dataclass(frozen=True)
class SharedStore:
    """What a release is told of it."""

    postgres: PostgresServer
    database: str
    postgres_port: int
    bucket: S3Server
    bucket_port: int

    @classmethod
    @contextmanager
    def serving(cls, folder: Path) -> Iterator[Self]:
        """An empty database and an empty bucket."""
        with ExitStack() as stack:
            postgres = stack.enter_context(PostgresServer())
            bucket = S3Server(folder)
            bucket.start()
            stack.callback(bucket.kill)
            asyncio.run(bucket.until_ready())
            ports = (postgres.port, urlsplit(bucket.endpoint).port or 0)
            doors = [stack.enter_context(Outlet(port)).port for port in ports]
            yield cls(postgres, postgres.create(), doors[0], bucket, doors[1])

    def create_secrets(self, kubectl: Kubectl, namespace: str) -> None:
        """The Secrets that the values name."""
        of_bucket = {"AWS_ACCESS_KEY_ID": self.bucket.access_key, "AWS_SECRET_ACCESS_KEY": self.bucket.secret_key}
        for name, data in ((PASSWORD, {"password": self.postgres.password}), (KEYS, of_bucket)):
            metadata = {"name": name, "namespace": namespace}
            kubectl.apply({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": data})

    def gateway(self) -> dict[str, Any]:
        """Values of the gateway."""
        return {
            "replicas": 2,
            "store": {
                "url": f"postgresql://{USER}@{CONTROL_ADDRESS}:{self.postgres_port}/{self.database}",
                "passwordSecret": {"name": PASSWORD},
            },
            "results": {
                "url": f"s3://{BUCKET}/cluster",
                "endpoint": f"http://{CONTROL_ADDRESS}:{self.bucket_port}",
                "region": "us-east-1",
                "credentialsSecret": KEYS,
            },
        }

    def network_policy(self) -> dict[str, Any]:
        """Values of the network policies: nothing else outside the cluster is reached."""
        return {
            "postgres": {"port": self.postgres_port, "to": THERE},
            "gatewayEgress": [{"to": THERE, "ports": [{"port": self.bucket_port}]}],
        }

    def revision(self) -> str:
        """The schema that the migration Job has brought it to."""
        with psycopg.connect(self.postgres.url(self.database)) as connection:
            ((revision,),) = connection.execute("SELECT version_num FROM alembic_version").fetchall()
        return str(revision)
