from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path

from wan22_testing.nodes.image import write_image


def test_an_image_holds_the_programs_under_their_tag(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_bytes(b"\x7fELF")
    archive = tmp_path / "image.tar"
    write_image(archive, "localhost/one:1", {"/bin/one": program}, entrypoint=["/bin/one"])
    with tarfile.open(archive) as tar:
        content = {name: tar.extractfile(name).read() for name in tar.getnames()}  # type: ignore[union-attr]
    manifest, config = json.loads(content["manifest.json"]), json.loads(content["config.json"])
    assert (manifest[0]["RepoTags"], manifest[0]["Layers"]) == (["localhost/one:1"], ["layer.tar"])
    assert config["config"]["Entrypoint"] == ["/bin/one"]
    layer = content["layer.tar"]
    assert config["rootfs"]["diff_ids"] == [f"sha256:{hashlib.sha256(layer).hexdigest()}"]
    with tarfile.open(fileobj=io.BytesIO(layer)) as tar:
        member = tar.getmember("bin/one")
        assert (member.mode, member.size) == (0o755, 4)
