"""Packs weights on their way into a registry, one file at a time, so that an interrupted import can go on."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from wan22.digests import digest_file
from wan22.durable_files import replace_file, room_on_disk, to_its_end
from wan22.errors import FailedPrecondition, InvalidRequest, Reason
from wan22.local_file import LocalFile
from wan22.pack.conversion import Form
from wan22.pack.malformed import MalformedFile
from wan22.pack.safetensors_header import StoredTensor
from wan22.pack.writer import pack_file
from wan22.precision import Precision, is_quantised, runs_in_bfloat16
from wan22.v1 import model_pb2
from wan22.variants import VARIANTS
from wan22.weights_file import WeightsFile

SUFFIX = ".pack"


class _Cancelled(Exception):  # ends the thread's work; nobody sees it
    pass


class Packer:
    """Packs a variant's weights; those of float32 that it runs in bfloat16 are packed so, or in the precision given.

    Its folder holds, by source, variant, component, precision: *.pack, packed and not yet pushed; *.json, what was
    pushed; *.lock, held by whoever packs and pushes the file, until the process ends, even by kill -9.
    """

    def __init__(self, folder: Path, variant: str, precision: Precision = "bf16") -> None:
        self._folder = folder
        self._precision = precision
        self._variant = VARIANTS[variant]
        folder.mkdir(parents=True, exist_ok=True)

    def pushed_before(self, source: WeightsFile) -> model_pb2.File | None:
        """The packed file that an earlier import of the same source pushed, to ask the registry for."""
        try:
            record = json.loads(self._path(source, ".json").read_bytes())
        except FileNotFoundError:
            return None
        return model_pb2.File(path=source.path_in_model + SUFFIX, digest=record["digest"], size_bytes=record["size"])

    @asynccontextmanager
    async def packed(self, source: WeightsFile, on_bytes: Callable[[int], object]) -> AsyncIterator[LocalFile]:
        """The packed file, for as long as it takes to push it; then it goes and is noted as pushed.

        Raises InvalidRequest (FORBIDDEN_FILE) for a source that is no safetensors file, ResourceExhausted on a full
        disk, FailedPrecondition (BLOB_BUSY) while another import has the same file.
        """
        with self._lock(source):
            target = self._path(source, SUFFIX)
            if not target.exists():
                await self._pack(source, target, on_bytes)
            size = target.stat().st_size
            digest = str(await digest_file(target))
            file = model_pb2.File(path=source.path_in_model + SUFFIX, digest=digest, size_bytes=size)
            yield LocalFile(target, file)
            replace_file(self._path(source, ".json"), json.dumps({"digest": digest, "size": size}).encode())
            target.unlink()

    def forget(self, sources: Iterable[WeightsFile]) -> None:
        """Ends what is remembered of them, once the version is published."""
        for source in sources:
            self._path(source, ".json").unlink(missing_ok=True)

    async def _pack(self, source: WeightsFile, target: Path, on_bytes: Callable[[int], object]) -> None:
        half = self._path(source, ".new")
        cancelled = threading.Event()

        def go_on(done: int) -> None:
            if cancelled.is_set():
                raise _Cancelled
            on_bytes(done)

        def choose(tensor: StoredTensor) -> Form:
            path = source.path_in_model
            if (
                self._precision == "fp8"
                and is_quantised(self._variant, path, tensor.name)
                and tensor.dtype != "F8_E4M3"
            ):
                return Form.FLOAT8
            bfloat16 = tensor.dtype == "F32" and runs_in_bfloat16(self._variant, path, tensor.name)
            return Form.BFLOAT16 if bfloat16 else Form.AS_IS

        running = asyncio.ensure_future(asyncio.to_thread(pack_file, source.path, half, go_on, choose))
        try:
            with room_on_disk(self._folder):
                await asyncio.shield(running)
        except asyncio.CancelledError:
            cancelled.set()
            await asyncio.wait([running])
            half.unlink(missing_ok=True)
            raise
        except MalformedFile as error:
            half.unlink(missing_ok=True)
            text = f"{source.path} cannot be packed: {error}."
            raise InvalidRequest(text, field="folder", reason=Reason.FORBIDDEN_FILE) from error
        except BaseException:  # a full disk, most likely
            half.unlink(missing_ok=True)
            raise
        if await asyncio.to_thread(source.has_changed):
            half.unlink()
            raise InvalidRequest(f"{source.path} has changed while it was packed: import it again.", field="folder")
        await to_its_end(_make_durable, half)  # a torn one would be pushed after a crash, with a digest that fits
        half.rename(target)

    @contextmanager
    def _lock(self, source: WeightsFile) -> Iterator[None]:
        path = self._path(source, ".lock")
        while True:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
                text = f"Another import is packing {source.path}: wait for its end, then go on."
                raise FailedPrecondition(text, reason=Reason.BLOB_BUSY) from None
            if os.fstat(descriptor).st_nlink:
                break
            os.close(descriptor)  # its last holder has removed it meanwhile: a lock that nobody else would find
        try:
            yield
        finally:
            path.unlink()
            os.close(descriptor)

    def _path(self, source: WeightsFile, suffix: str) -> Path:
        component = source.path_in_model.partition("/")[0]  # what is converted depends on it
        name = f"{source.identity}-{self._variant.name}-{component}-{self._precision}"
        return self._folder / (name + suffix)


def _make_durable(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
