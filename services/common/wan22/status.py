"""Errors on the wire: `google.rpc.Status` with ErrorInfo, BadRequest and RetryInfo details (AIP-193)."""

from __future__ import annotations

import grpc
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from wan22.errors import DOMAIN, KINDS, Code, InvalidRequest, Reason, Unavailable, UnknownError, Violation, Wan22Error

MESSAGE_BYTES = 1200
"""Most UTF-8 bytes of an error's text, and of all its violations: they travel percent-encoded and in base64."""
FIELD_BYTES = 100
BROKEN_WRITE = "Internal error from Core"
"""What grpc.aio itself says, as INTERNAL, when a stream ends under a write (github.com/grpc/grpc/issues/36066)."""


def to_status(error: Wan22Error) -> status_pb2.Status:
    """Packs an error with its details."""
    status = status_pb2.Status(code=int(error.code), message=_bounded(error.message, MESSAGE_BYTES))
    if error.reason is not Reason.UNSPECIFIED or error.metadata:
        info = error_details_pb2.ErrorInfo(reason=error.reason.value, domain=DOMAIN, metadata=error.metadata)
        status.details.add().Pack(info)
    if isinstance(error, InvalidRequest) and error.violations:
        bad = error_details_pb2.BadRequest()
        for violation in error.violations:
            description = _bounded(violation.description, MESSAGE_BYTES // len(error.violations))
            bad.field_violations.add(field=_bounded(violation.field, FIELD_BYTES), description=description)
        status.details.add().Pack(bad)
    if error.retry_after is not None:
        delay = Duration()
        delay.FromMilliseconds(round(error.retry_after * 1000))
        status.details.add().Pack(error_details_pb2.RetryInfo(retry_delay=delay))
    return status


def _bounded(text: str, size: int) -> str:
    """The text, or its start and how long it was: gRPC drops a status whose metadata has more than 8 KiB."""
    if len(text.encode()) <= size:
        return text
    return f"{text.encode()[:size].decode(errors='ignore')}… ({len(text)} characters)"


def from_status(status: status_pb2.Status) -> Wan22Error:
    """Unpacks an error; a code that has no kind of its own becomes an UnknownError."""
    info = error_details_pb2.ErrorInfo()
    bad = error_details_pb2.BadRequest()
    retry = error_details_pb2.RetryInfo()
    for detail in status.details:
        for message in (info, bad, retry):
            if detail.Is(message.DESCRIPTOR):
                detail.Unpack(message)
    reason = Reason(info.reason) if info.reason in Reason.__members__ else Reason.UNSPECIFIED
    code = Code(status.code) if status.code in Code._value2member_map_ else Code.UNKNOWN
    if code is Code.INVALID_ARGUMENT:
        violations = [Violation(v.field, v.description) for v in bad.field_violations]
        return InvalidRequest(status.message, violations=violations, reason=reason)
    kind = KINDS.get(code, UnknownError)
    retry_after = retry.retry_delay.ToMilliseconds() / 1000 if retry.HasField("retry_delay") else None
    return kind(status.message, reason=reason, metadata=dict(info.metadata), retry_after=retry_after)


def from_rpc_error(error: grpc.aio.AioRpcError) -> Wan22Error:
    """Turns what a stub raised into the error that the server raised; Unavailable where a connection broke."""
    if error.details() == BROKEN_WRITE:
        return Unavailable("The connection broke while a stream was sent.")
    status = rpc_status.from_call(error)  # type: ignore[arg-type]  # has code(), details(), trailing_metadata()
    if status is None:
        number: int = error.code().value[0]
        status = status_pb2.Status(code=number, message=error.details() or "")
    return from_status(status)
