"""The errors that wan22 raises: each kind has one code, each text says what is wrong, the value and what to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum, StrEnum

DOMAIN = "wan22.dev"


class Code(IntEnum):
    """google.rpc.Code, by number; kept here so that code without gRPC can raise errors."""

    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


class Reason(StrEnum):
    """`google.rpc.ErrorInfo.reason` of an error, for programs."""

    UNSPECIFIED = "UNSPECIFIED"
    # Requests
    INVALID_PARAMETERS = "INVALID_PARAMETERS"
    UNKNOWN_FIELD = "UNKNOWN_FIELD"
    VARIANT_NOT_SERVED = "VARIANT_NOT_SERVED"
    PROFILE_NOT_SERVED = "PROFILE_NOT_SERVED"
    REQUEST_ID_REUSED = "REQUEST_ID_REUSED"
    QUEUE_FULL = "QUEUE_FULL"
    GENERATION_UNFINISHED = "GENERATION_UNFINISHED"
    NO_CREDENTIALS = "NO_CREDENTIALS"
    BAD_CREDENTIALS = "BAD_CREDENTIALS"
    ROLE_MISSING = "ROLE_MISSING"
    TENANT_IN_USE = "TENANT_IN_USE"
    QUOTA_EXCEEDED = "QUOTA_EXCEEDED"
    DEADLINE_MISSED = "DEADLINE_MISSED"
    NO_WEBHOOK = "NO_WEBHOOK"
    PROMPT_REFUSED = "PROMPT_REFUSED"
    VIDEO_NOT_READY = "VIDEO_NOT_READY"
    VIDEO_EXPIRED = "VIDEO_EXPIRED"
    MEDIA_UNREADABLE = "MEDIA_UNREADABLE"
    # Pools and workers
    POOL_IN_USE = "POOL_IN_USE"
    POOL_DELETED = "POOL_DELETED"
    WORKER_BUSY = "WORKER_BUSY"
    WORKER_LOADING = "WORKER_LOADING"
    WORKER_DRAINING = "WORKER_DRAINING"
    WORKER_CLAIMED = "WORKER_CLAIMED"
    STALE_OWNER = "STALE_OWNER"
    WRONG_VERSION = "WRONG_VERSION"
    ATTEMPT_RELEASED = "ATTEMPT_RELEASED"
    QUARANTINED = "QUARANTINED"
    # Models
    DIGEST_MISMATCH = "DIGEST_MISMATCH"
    BLOB_MISSING = "BLOB_MISSING"
    BLOB_BUSY = "BLOB_BUSY"
    VERSION_PINNED = "VERSION_PINNED"
    REGISTRY_FULL = "REGISTRY_FULL"
    FORBIDDEN_FILE = "FORBIDDEN_FILE"
    MODEL_MISFIT = "MODEL_MISFIT"
    ADAPTER_MISFIT = "ADAPTER_MISFIT"
    ADAPTER_NOT_APPROVED = "ADAPTER_NOT_APPROVED"
    # The engine
    NOT_FINITE = "NOT_FINITE"
    OUT_OF_MEMORY = "OUT_OF_MEMORY"
    DAMAGED_CHECKPOINT = "DAMAGED_CHECKPOINT"
    OTHER_NUMERICS = "OTHER_NUMERICS"
    # Processes
    STORE_IN_USE = "STORE_IN_USE"
    STORE_TOO_NEW = "STORE_TOO_NEW"
    STORE_TOO_OLD = "STORE_TOO_OLD"
    STORE_UNAVAILABLE = "STORE_UNAVAILABLE"
    BAD_SETTING = "BAD_SETTING"


@dataclass(frozen=True)
class Violation:
    """One field of a request that is wrong, and how to put it right."""

    field: str
    description: str


class Wan22Error(Exception):
    """Base of all errors that have a meaning for the caller."""

    code: Code = Code.UNKNOWN

    def __init__(
        self,
        message: str,
        *,
        reason: Reason = Reason.UNSPECIFIED,
        metadata: Mapping[str, str] | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason
        self.metadata = dict(metadata or {})
        self.retry_after = retry_after
        """Seconds after which another try makes sense; None where none does."""


class InvalidRequest(Wan22Error):
    """The request breaks a rule, whatever the state of the system; `violations` names every field."""

    code = Code.INVALID_ARGUMENT

    def __init__(
        self,
        message: str,
        *,
        field: str | None = None,
        violations: Sequence[Violation] = (),
        reason: Reason = Reason.INVALID_PARAMETERS,
    ) -> None:
        super().__init__(message, reason=reason)
        self.violations = tuple(violations) or ((Violation(field, message),) if field else ())


class NotFound(Wan22Error):
    """What the request names is not there."""

    code = Code.NOT_FOUND


class AlreadyExists(Wan22Error):
    """The name or id is taken by something else."""

    code = Code.ALREADY_EXISTS


class PermissionDenied(Wan22Error):
    """The caller is known, and may not do this."""

    code = Code.PERMISSION_DENIED


class Unauthenticated(Wan22Error):
    """The caller is not known: no credentials, or bad ones."""

    code = Code.UNAUTHENTICATED


class ResourceExhausted(Wan22Error):
    """A quota, a queue or a disk is full."""

    code = Code.RESOURCE_EXHAUSTED


class FailedPrecondition(Wan22Error):
    """The system is not in the state that the request needs; repeating it alone does not help."""

    code = Code.FAILED_PRECONDITION


class Aborted(Wan22Error):
    """Somebody newer owns this now."""

    code = Code.ABORTED


class OutOfRange(Wan22Error):
    """An offset or sequence number lies beyond what there is."""

    code = Code.OUT_OF_RANGE


class InternalError(Wan22Error):
    """An invariant of ours is broken."""

    code = Code.INTERNAL


class Unavailable(Wan22Error):
    """Not now; the same request may succeed later."""

    code = Code.UNAVAILABLE


class DataLoss(Wan22Error):
    """Stored bytes are not what they were."""

    code = Code.DATA_LOSS


class DeadlineExceeded(Wan22Error):
    """The time allowed is over."""

    code = Code.DEADLINE_EXCEEDED


class Cancelled(Wan22Error):
    """The work was stopped on request."""

    code = Code.CANCELLED


class UnknownError(Wan22Error):
    """A peer failed in a way that it did not name."""

    code = Code.UNKNOWN


KINDS: Mapping[Code, type[Wan22Error]] = {
    kind.code: kind
    for kind in (
        InvalidRequest,
        NotFound,
        AlreadyExists,
        PermissionDenied,
        Unauthenticated,
        ResourceExhausted,
        FailedPrecondition,
        Aborted,
        OutOfRange,
        InternalError,
        Unavailable,
        DataLoss,
        DeadlineExceeded,
        Cancelled,
        UnknownError,
    )
}
"""The one table of codes and kinds."""
