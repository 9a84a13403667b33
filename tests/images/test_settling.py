from pathlib import Path

from wan22_testing.images.archive import Image
from wan22_testing.images.settling import settle


def test_a_settled_archive_keeps_its_layers_and_settles_to_itself(image: Image, tmp_path: Path) -> None:
    settle(image.archive, tmp_path / "settled.tar")
    settled = Image.read(tmp_path / "settled.tar")
    assert settled.config == image.config
    assert settled.manifest["layers"] == image.manifest["layers"]
    assert next(settled.entries()).name == next(image.entries()).name
    settle(settled.archive, tmp_path / "again.tar")
    assert Image.read(tmp_path / "again.tar").digest == settled.digest
    assert (tmp_path / "again.tar").read_bytes() == (tmp_path / "settled.tar").read_bytes()
