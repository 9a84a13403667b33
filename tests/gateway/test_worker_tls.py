from __future__ import annotations

from pathlib import Path
from typing import Any

from wan22.tls import Tls
from wan22.v1.generation_pb2 import Generation
from wan22_testing.authority import Authority

from .scripted_worker import T2V, ScriptedWorkerServicer, gateway_with


def flags(tls: Tls) -> dict[str, Any]:
    return {"tls_ca": tls.ca, "tls_cert": tls.cert, "tls_key": tls.key}


async def test_a_generation_runs_over_mutual_tls_and_after_the_gateways_certificate_was_replaced(
    tmp_path: Path,
) -> None:
    (tmp_path / "pki").mkdir()
    authority = Authority(tmp_path / "pki")
    worker = authority.issue("worker")
    gateway = flags(authority.issue("gateway"))
    async with gateway_with(tmp_path, ScriptedWorkerServicer(), worker_tls=worker, **gateway) as client:
        for _ in range(2):
            made = await client.create(variant=T2V, prompt="over TLS")
            assert (await client.wait(made.name)).state == Generation.SUCCEEDED
            authority.issue("gateway")
            authority.issue("worker")
