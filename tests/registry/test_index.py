from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from wan22.digests import Sha256
from wan22.errors import DataLoss
from wan22.manifest import config_of, files_of, manifest_of
from wan22.v1.model_pb2 import File
from wan22_registry.index import Entry, Index

ENTRY = Entry(
    model="m",
    digest="sha256:" + "a" * 64,
    manifest_size=7,
    create_time=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
    tags=("latest", "v1"),
    pinned=True,
)


def test_what_was_written_is_read_again(tmp_path: Path) -> None:
    Index(tmp_path).replace([ENTRY])
    assert Index(tmp_path).entries == (ENTRY,)
    assert json.loads((tmp_path / "index.json").read_bytes()) == {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [
            {
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "artifactType": "application/vnd.wan22.model.v1+json",
                "digest": ENTRY.digest,
                "size": 7,
                "annotations": {
                    "dev.wan22.model": "m",
                    "dev.wan22.tags": "latest,v1",
                    "dev.wan22.pinned": "true",
                    "org.opencontainers.image.created": "2026-01-02T03:04:05Z",
                    "org.opencontainers.image.ref.name": "m:latest",
                },
            }
        ],
    }


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b'{"manifests": [{}]}',
        b'{"manifests": [{"digest": "x", "annotations": null}]}',
        b"\xff",
    ],
)
def test_an_index_that_is_not_ours_stops_the_start_by_name(tmp_path: Path, content: bytes) -> None:
    Index(tmp_path)
    (tmp_path / "index.json").write_bytes(content)
    with pytest.raises(DataLoss, match=r"index\.json is not.*restore it"):
        Index(tmp_path)


def test_a_layout_of_another_version_is_refused(tmp_path: Path) -> None:
    (tmp_path / "oci-layout").write_text('{"imageLayoutVersion": "2.0.0"}')
    with pytest.raises(DataLoss, match=r"oci-layout does not say .*1\.0\.0"):
        Index(tmp_path)


def test_a_manifest_is_the_same_bytes_for_the_same_files_for_ever() -> None:
    files = [
        File(path="model_index.json", digest="sha256:" + "b" * 64, size_bytes=2),
        File(path="vae/diffusion_pytorch_model.safetensors", digest="sha256:" + "c" * 64, size_bytes=3),
    ]
    manifest = manifest_of(config_of("t2v-a14b-tiny"), files)
    assert str(Sha256(manifest)) == "sha256:57b90be36726d08a876ced89d3a260bcf7dc9b2b544059b373a0b67af54ead67"
    assert files_of(json.loads(manifest)) == files
