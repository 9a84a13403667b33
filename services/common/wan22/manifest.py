"""The OCI image manifest of a version: its variant and files and nothing else, so that equal content has one digest."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from wan22.digests import Sha256
from wan22.v1 import model_pb2

ARTIFACT_TYPE = "application/vnd.wan22.model.v1+json"
CONFIG_TYPE = "application/vnd.wan22.model.config.v1+json"
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
FILE_TYPES = {
    "json": "application/json",
    "safetensors": "application/vnd.wan22.safetensors",
    "pack": "application/vnd.wan22.pack.v1",
}
"""Media type of a layer by the ending of its path."""
TITLE = "org.opencontainers.image.title"


def canonical_json(value: object) -> bytes:
    """The one way in which a registry writes a value."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()


def config_of(variant: str) -> bytes:
    """The config blob."""
    return canonical_json({"variant": variant})


def manifest_of(config: bytes, files: Sequence[model_pb2.File]) -> bytes:
    """The manifest blob; files by path."""
    layers = [
        {
            "mediaType": FILE_TYPES[file.path.rpartition(".")[2]],
            "digest": file.digest,
            "size": file.size_bytes,
            "annotations": {TITLE: file.path},
        }
        for file in files
    ]
    return canonical_json(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "artifactType": ARTIFACT_TYPE,
            "config": {"mediaType": CONFIG_TYPE, "digest": str(Sha256(config)), "size": len(config)},
            "layers": layers,
        }
    )


def config_digest(manifest: dict[str, Any]) -> str:
    """Which blob the config of a read manifest is."""
    digest: str = manifest["config"]["digest"]
    return digest


def files_of(manifest: dict[str, Any]) -> list[model_pb2.File]:
    """The files of a read manifest, by path."""
    return [
        model_pb2.File(path=layer["annotations"][TITLE], digest=layer["digest"], size_bytes=layer["size"])
        for layer in manifest["layers"]
    ]
