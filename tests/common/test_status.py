import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from wan22.errors import (
    KINDS,
    InvalidRequest,
    Reason,
    ResourceExhausted,
    Unavailable,
    UnknownError,
    Violation,
    Wan22Error,
)
from wan22.status import from_rpc_error, from_status, to_status


@pytest.mark.parametrize("kind", KINDS.values(), ids=lambda kind: kind.__name__)
def test_each_kind_of_error_comes_back_as_itself(kind: type[Wan22Error]) -> None:
    back = from_status(to_status(kind("Disk 1 is full: free 2 GB.", reason=Reason.STORE_IN_USE)))
    assert type(back) is kind
    assert (back.message, back.reason, back.code) == ("Disk 1 is full: free 2 GB.", Reason.STORE_IN_USE, kind.code)


def test_metadata_and_delay_come_back() -> None:
    error = ResourceExhausted("Full.", reason=Reason.QUEUE_FULL, metadata={"limit": "1000"}, retry_after=1.25)
    back = from_status(to_status(error))
    assert (back.metadata, back.retry_after) == ({"limit": "1000"}, 1.25)
    assert from_status(to_status(ResourceExhausted("Full."))).retry_after is None


def test_each_violation_comes_back() -> None:
    violations = [Violation("parameters.width", "width is 7: use 64."), Violation("parameters.fps", "fps is 0: use 1.")]
    back = from_status(to_status(InvalidRequest("Two are wrong.", violations=violations)))
    assert isinstance(back, InvalidRequest)
    assert back.violations == tuple(violations)


def test_the_details_are_those_of_google_rpc() -> None:
    status = to_status(InvalidRequest("fps is 0: use 1.", field="parameters.fps"))
    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    assert status.details[0].Unpack(info)
    assert (info.domain, info.reason) == ("wan22.dev", "INVALID_PARAMETERS")
    assert status.details[1].Unpack(bad)
    assert bad.field_violations[0].field == "parameters.fps"


def test_an_unknown_code_or_reason_of_a_newer_peer_is_no_error_of_ours() -> None:
    status = status_pb2.Status(code=99, message="Who are you?")
    status.details.add().Pack(error_details_pb2.ErrorInfo(reason="FROM_THE_FUTURE", domain="wan22.dev"))
    back = from_status(status)
    assert (type(back), back.reason, back.message) == (UnknownError, Reason.UNSPECIFIED, "Who are you?")


def test_a_write_that_a_dying_connection_broke_is_unavailable_and_so_tried_again() -> None:
    broken = grpc.aio.AioRpcError(
        grpc.StatusCode.INTERNAL, grpc.aio.Metadata(), grpc.aio.Metadata(), details="Internal error from Core"
    )
    error = from_rpc_error(broken)
    assert isinstance(error, Unavailable)
    assert error.reason is Reason.UNSPECIFIED


def test_a_text_that_quotes_a_huge_value_is_cut_and_says_so() -> None:
    error = InvalidRequest("x" * 50_000, violations=[Violation("f" * 5000, "描" * 50_000) for _ in range(14)])
    status = to_status(error)
    assert len(status.SerializeToString()) < 5000
    back = from_status(status)
    assert back.message.endswith("x… (50000 characters)")
    assert isinstance(back, InvalidRequest)
    assert len(back.violations) == 14
    assert back.violations[0].description.endswith("描… (50000 characters)")
