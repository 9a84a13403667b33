"""Gives a version's files back as they were before they were packed."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from wan22.cache import CachedVersion
from wan22.durable_files import room_on_disk, to_its_end
from wan22.errors import DataLoss, InvalidRequest, Reason
from wan22.pack.layout import PACKED_SUFFIX
from wan22.pack.malformed import MalformedFile
from wan22.pack.reader import unpack_file


class Export:
    """An empty folder that a version's files go to."""

    def __init__(self, folder: Path) -> None:
        """Raises InvalidRequest for a folder that has something in it: an export mixes with nothing."""
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise InvalidRequest(f"{folder} is not an empty folder: export to a new one.", field="folder")
        self._folder = folder

    async def write(self, cached: CachedVersion, on_file: Callable[[str], object]) -> None:
        """Writes the files, packed ones unpacked; `on_file` hears each path of the version once its file is whole.

        Raises ResourceExhausted on a full disk, DataLoss for a pack that does not unpack to what was packed.
        """
        for path, source in cached.files.items():
            target = self._folder / _inside(path)
            if path.endswith(PACKED_SUFFIX):
                target = target.with_name(target.name.removesuffix(".pack"))
            await to_its_end(_write, path, source, target)
            on_file(path)


def _inside(path: str) -> PurePosixPath:
    """The path itself: a registry checks paths, but what comes from one is not trusted to stay in a folder."""
    found = PurePosixPath(path)
    if found.is_absolute() or not found.parts or ".." in found.parts:
        raise DataLoss(f"The version has a file {path!r}, which is no path inside a folder.")
    return found


def _write(path: str, source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    half = target.with_name(target.name + ".part")
    try:
        with room_on_disk(target.parent):
            if path.endswith(PACKED_SUFFIX):
                unpack_file(source, half, lambda _: None)
            else:
                shutil.copyfile(source, half)
        half.rename(target)
    except MalformedFile as error:
        text = f"{path} is damaged: {error}. Import the model again."
        raise DataLoss(text, reason=Reason.DIGEST_MISMATCH) from error
    finally:
        half.unlink(missing_ok=True)
