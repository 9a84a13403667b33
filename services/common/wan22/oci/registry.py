"""One repository of a registry, by the OCI distribution specification 1.1: its blobs and manifests."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any, Self

import httpx

from wan22.client_calls import Patience
from wan22.digests import Sha256
from wan22.errors import (
    DataLoss,
    FailedPrecondition,
    NotFound,
    PermissionDenied,
    Reason,
    ResourceExhausted,
    Unavailable,
    Wan22Error,
)
from wan22.http_client import HttpClient
from wan22.manifest import MANIFEST_TYPE
from wan22.oci.authorization import Authorization
from wan22.oci.reference import OciReference

log = logging.getLogger(__name__)
UPLOAD_BYTES = 16 << 20
"""Bytes of one PATCH, in memory: what a broken one sends again."""
MAX_MANIFEST_BYTES = 4 << 20
"""What the specification asks registries to take."""
TIMEOUT = httpx.Timeout(60.0, connect=10.0)
"""Of a connection without a byte, not of a transfer."""
ADVICE = "check the address, and whether it answers https."
Read = Callable[[int], AsyncGenerator[bytes, None]]
"""Gives a blob's bytes from an offset."""


class OciRegistry:
    """A connection to a repository; use as an async context manager. Errors are those of wan22.errors.

    What is not answered is tried again for `patience` seconds; transfers resume where they stopped. Asks by plain HTTP
    on this machine, or where it is told to.
    """

    def __init__(self, reference: OciReference, *, plain_http: bool = False, patience: float = 30.0) -> None:
        self.reference = reference
        self._plain_http = plain_http or reference.is_local
        self._patience = patience
        scheme = "http" if self._plain_http else "https"
        self._base = httpx.URL(f"{scheme}://{reference.host}/v2/{reference.repository}/")

    async def __aenter__(self) -> Self:
        self._http = HttpClient(timeout=TIMEOUT, headers={"User-Agent": "wan22"})
        scope = f"repository:{self.reference.repository}:pull,push"
        self._authorization = Authorization(self._http, self.reference.host, scope, plain_http=self._plain_http)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    async def has_blob(self, digest: str) -> bool:
        """Whether the repository has a blob."""
        answer = await self._try("HEAD", self._base.join(f"blobs/{digest}"), expected={200, 404})
        return answer.status_code == 200

    async def read_blob(self, digest: str, offset: int = 0) -> AsyncGenerator[bytes, None]:
        """Yields a blob's bytes from an offset, resuming where a stream broke. The caller compares the digest."""
        patience = self._new_patience()
        url = self._base.join(f"blobs/{digest}")
        while True:
            try:
                headers = {"Range": f"bytes={offset}-"} if offset else {}
                async with self._send("GET", url, headers=headers, expected={200, 206}) as answer:
                    skip = offset if answer.status_code == 200 else 0  # a registry that knows no ranges
                    async for data in answer.aiter_raw():
                        new = data[skip:]
                        skip -= len(data) - len(new)
                        if new:
                            offset += len(new)
                            patience.restore()
                            yield new
            except Unavailable as error:
                await patience.pause(error)
            else:
                return

    async def push_blob(self, digest: str, read: Read, sent: Callable[[int], object]) -> None:
        """Pushes a blob unless it is there, in pieces; `sent` hears the bytes that have arrived.

        Raises DataLoss when the registry finds other bytes than the digest's.
        """
        if await self.has_blob(digest):
            return
        patience = self._new_patience()
        upload, offset = None, 0
        while True:
            try:
                if upload is None:
                    upload, offset = await self._begin_upload(), 0
                async with aclosing(read(offset)) as data:
                    async for piece in _pieces(data):
                        upload = await self._append(upload, offset, piece)
                        offset += len(piece)
                        sent(offset)
                        patience.restore()
                await self._finish_upload(upload, digest)
            except Unavailable as error:
                await patience.pause(error)
                if upload is not None:
                    upload, offset = await self._resume_upload(upload)
                    log.info("Going on with %s at byte %d.", digest, offset)
                if upload is None and await self.has_blob(digest):  # it was the last answer that was lost
                    return
            else:
                return

    async def get_manifest(self) -> bytes:
        """The manifest that the reference names. Raises NotFound; DataLoss when it has another digest."""
        url = self._base.join(f"manifests/{self.reference.manifest}")
        answer = await self._try("GET", url, headers={"Accept": MANIFEST_TYPE}, limit=MAX_MANIFEST_BYTES)
        actual = str(Sha256(answer.content))
        wanted = self.reference.digest or answer.headers.get("Docker-Content-Digest", actual)
        if wanted.startswith("sha256:") and actual != wanted:
            text = f"{self.reference} is said to be {wanted}, but the manifest that came has digest {actual}."
            metadata = {"expected": wanted, "actual": actual}
            raise DataLoss(text, reason=Reason.DIGEST_MISMATCH, metadata=metadata)
        return answer.content

    async def put_manifest(self, content: bytes) -> None:
        """Stores a manifest under the reference's tag, or its digest alone. Its blobs must be there."""
        name = self.reference.tag or str(Sha256(content))
        url = self._base.join(f"manifests/{name}")
        await self._try("PUT", url, content=content, headers={"Content-Type": MANIFEST_TYPE}, expected={201})

    def _new_patience(self) -> Patience:
        return Patience(self.reference.host, self._patience, ADVICE)

    async def _begin_upload(self) -> httpx.URL:
        async with self._send("POST", self._base.join("blobs/uploads/"), content=b"", expected={202}) as answer:
            return self._location(answer)

    async def _append(self, upload: httpx.URL, offset: int, piece: bytes) -> httpx.URL:
        headers = {
            "Content-Type": "application/octet-stream",
            "Content-Range": f"{offset}-{offset + len(piece) - 1}",
        }
        async with self._send("PATCH", upload, content=piece, headers=headers, expected={202, 204}) as answer:
            return self._location(answer)

    async def _finish_upload(self, upload: httpx.URL, digest: str) -> None:
        url = upload.copy_merge_params({"digest": digest})
        async with self._send("PUT", url, content=b"", expected={201, 204}):
            pass

    async def _resume_upload(self, upload: httpx.URL) -> tuple[httpx.URL | None, int]:
        """Where an upload stands; None where the registry has forgotten it."""
        answer = await self._try("GET", upload, expected={204, 202, 404})
        if answer.status_code == 404:
            return None, 0
        last = answer.headers.get("Range", "0-0").rpartition("-")[2]
        if not last.isdigit():
            return None, 0
        return self._location(answer), int(last) + 1 if int(last) else 0  # 0-0 is what registries say of no byte

    def _location(self, answer: httpx.Response) -> httpx.URL:
        location = answer.headers.get("Location")
        if not location:
            raise FailedPrecondition(f"{self.reference.host} answers without saying where the upload goes on.")
        url = answer.request.url.join(location)
        if url.scheme != "https" and not self._plain_http:
            raise FailedPrecondition(f"{self.reference.host} sends the upload to {url}, which is not https.")
        return url

    async def _try(
        self, method: str, url: httpx.URL, *, limit: int = MAX_MANIFEST_BYTES, **options: Any
    ) -> httpx.Response:
        """Sends an idempotent request until it is answered, and reads the answer, of at most `limit` bytes."""
        patience = self._new_patience()
        while True:
            try:
                async with self._send(method, url, **options) as answer:
                    body = b""
                    async for data in answer.aiter_raw():
                        body += data
                        if len(body) > limit:
                            raise FailedPrecondition(f"{url} is longer than the {limit} bytes that are taken.")
                return httpx.Response(answer.status_code, headers=answer.headers, content=body, request=answer.request)
            except Unavailable as error:
                await patience.pause(error)

    @asynccontextmanager
    async def _send(
        self,
        method: str,
        url: httpx.URL,
        *,
        content: bytes | None = None,
        headers: dict[str, str] | None = None,
        expected: frozenset[int] | set[int] = frozenset({200}),
    ) -> AsyncIterator[httpx.Response]:
        """Sends a request once, or twice where the registry asks who we are; follows redirects of reads."""
        try:
            for challenged in (False, True):
                request = self._http.build_request(
                    method, url, content=content, headers={"Accept-Encoding": "identity", **(headers or {})}
                )
                if self._authorization.header and _origin(url) == _origin(self._base):
                    request.headers["Authorization"] = self._authorization.header
                answer = await self._http.send(request, stream=True, follow_redirects=method in {"GET", "HEAD"})
                try:
                    if answer.status_code == 401 and not challenged:
                        await self._authorization.answer(answer.headers.get_list("WWW-Authenticate"))
                        continue
                    if answer.status_code not in expected:
                        raise await self._error(answer)
                    yield answer
                    return
                finally:
                    await answer.aclose()
        except httpx.TransportError as error:
            text = f"{self.reference.host} does not answer: {str(error) or type(error).__name__}"
            raise Unavailable(text) from error
        except httpx.HTTPError as error:
            raise FailedPrecondition(f"{method} {url} fails: {error}.") from error

    async def _error(self, answer: httpx.Response) -> Wan22Error:
        """What the registry says is wrong: the specification has it as errors, each with a code and a message."""
        said = ""
        async for data in answer.aiter_bytes():
            said += data[:4096].decode(errors="replace")
            if len(said) > 4096:
                break
        try:
            errors = json.loads(said)["errors"]
            codes = {str(error.get("code")) for error in errors}
            said = "; ".join(f"{error.get('code')} {error.get('message', '')}".strip() for error in errors)
        except (AttributeError, KeyError, TypeError, ValueError):
            codes = set[str]()
            said = " ".join(said.split())
        code = answer.status_code
        text = f"{self.reference.host} answers {code} to {answer.request.method} {answer.request.url.path}"
        text += f": {said[:400]}." if said else "."
        if "DIGEST_INVALID" in codes:
            return DataLoss(text, reason=Reason.DIGEST_MISMATCH)
        if code in {401, 403}:
            return PermissionDenied(f"{text} Log in by `docker login {self.reference.host}`.")
        if code == 404:
            return NotFound(text)
        if code in {413, 507}:
            return ResourceExhausted(text)
        if code in {408, 416, 429} or code >= 500:  # 416: an upload that stands elsewhere than thought; it is asked
            return Unavailable(text, retry_after=_retry_after(answer))
        return FailedPrecondition(text)


def _retry_after(answer: httpx.Response) -> float | None:
    value = answer.headers.get("Retry-After", "")
    return float(value) if value.isdigit() else None


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port


async def _pieces(data: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The same bytes, UPLOAD_BYTES at a time."""
    piece = bytearray()
    async for chunk in data:
        piece += chunk
        while len(piece) >= UPLOAD_BYTES:
            yield bytes(piece[:UPLOAD_BYTES])
            del piece[:UPLOAD_BYTES]
    if piece:
        yield bytes(piece)
