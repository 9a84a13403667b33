"""What a gateway of simulated workers is given in place of an operator and a registry: keys, a pool, its tokenizer."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from wan22.channels import open_channel
from wan22.v1 import pool_pb2, pool_pb2_grpc
from wan22_testing import tiny_tokenizer

VARIANT = "t2v-a14b"
_DIGEST = "5" * 64
VERSION = f"models/wan2.2-{VARIANT}/versions/sha256:{_DIGEST}"


def declare(path: Path, keys: Mapping[str, tuple[str, str]]) -> None:
    """Writes a file of tenants and keys: for each key its tenant and its role."""
    tenants = [{"name": name} for name in dict.fromkeys(tenant for tenant, _ in keys.values())]
    declared = [{"tenant": tenant, "roles": [role], "key": key} for key, (tenant, role) in keys.items()]
    path.write_text(json.dumps({"tenants": tenants, "keys": declared}))


def put_tokenizer(folder: Path) -> None:
    """Puts the version's tokenizer into a gateway's folder, which then needs no registry."""
    tokenizers = folder / "tokenizers"
    tokenizers.mkdir(parents=True)
    tiny_tokenizer.build().save(str(tokenizers / f"{_DIGEST}.json"))


async def apply_pool(address: str, key: str, name: str, targets: Sequence[str] = ()) -> None:
    """Declares the pool to a gateway, with these workers; the key is an operator's."""
    pool = pool_pb2.Pool(
        name=name,
        variant=VARIANT,
        model_version=VERSION,
        max_workers=max(1, len(targets)),
        default_for_variant=True,
        worker_targets=targets,
    )
    metadata = [("authorization", f"Bearer {key}")]
    async with open_channel(address) as channel:
        request = pool_pb2.ApplyPoolRequest(pool=pool)
        await pool_pb2_grpc.PoolServiceStub(channel).ApplyPool(request, metadata=metadata, timeout=30.0)
