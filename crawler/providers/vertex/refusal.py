"""From the error of a gRPC call to the outcome of the attempt.

Rule: by the status code and by what it says, never by an exception's class. UNAVAILABLE alone has
four meanings, and RESOURCE_EXHAUSTED three.
"""

from collections.abc import Sequence
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from crawler.protocol import ProviderError
from crawler.redaction import redacted
from crawler.states import Outcome

REASON_LENGTH = 300

# google/rpc/code.proto names these equivalents.
HTTP_STATUS = {
    "CANCELLED": 499,
    "UNKNOWN": 500,
    "INVALID_ARGUMENT": 400,
    "DEADLINE_EXCEEDED": 504,
    "NOT_FOUND": 404,
    "ALREADY_EXISTS": 409,
    "PERMISSION_DENIED": 403,
    "UNAUTHENTICATED": 401,
    "RESOURCE_EXHAUSTED": 429,
    "FAILED_PRECONDITION": 400,
    "ABORTED": 409,
    "OUT_OF_RANGE": 400,
    "UNIMPLEMENTED": 501,
    "INTERNAL": 500,
    "UNAVAILABLE": 503,
    "DATA_LOSS": 500,
}
OUTCOMES = {
    "INVALID_ARGUMENT": Outcome.REJECTED,
    "NOT_FOUND": Outcome.REJECTED,
    "ALREADY_EXISTS": Outcome.REJECTED,
    "FAILED_PRECONDITION": Outcome.REJECTED,
    "OUT_OF_RANGE": Outcome.REJECTED,
    "UNIMPLEMENTED": Outcome.REJECTED,
    "PERMISSION_DENIED": Outcome.DENIED,
    "UNAUTHENTICATED": Outcome.DENIED,
    "RESOURCE_EXHAUSTED": Outcome.THROTTLED,
}
"""All others are transient."""

TOO_LARGE = "larger than max"  # said by our own side of the connection
CREDENTIALS_FAILED = "Getting metadata from plugin failed"
NOBODY_THERE = (
    "failed to connect to all addresses",
    "errors resolving",
    "DNS resolution failed",
    "ping timeout",  # it is frozen, or the way to it is gone
    "keepalive watchdog timeout",
)
REFUSED_STREAM = "RST_STREAM with error code 7"
PER_DAY = ("per_day", "PerDay", "per day")


def refusal(error: grpc.aio.AioRpcError, secrets: Sequence[str] = ()) -> ProviderError:
    """Return what an error says of the attempt, without some secrets."""
    name, said = error.code().name, error.details() or ""
    outcome = OUTCOMES.get(name, Outcome.TRANSIENT)
    pause_ms = retry_delay_ms(error)
    if name == "RESOURCE_EXHAUSTED" and TOO_LARGE in said:
        outcome = Outcome.REJECTED
    elif name == "UNAVAILABLE" and CREDENTIALS_FAILED in said:
        outcome = Outcome.DENIED
    elif name == "UNAVAILABLE" and any(sign in said for sign in NOBODY_THERE):
        outcome = Outcome.UNAVAILABLE
    elif name == "UNAVAILABLE" and REFUSED_STREAM in said:
        pause_ms = 0  # it was not processed
    return ProviderError(
        outcome,
        redacted(f"{name}: {' '.join(said.split())}", secrets)[:REASON_LENGTH],
        status_code=HTTP_STATUS.get(name),
        retry_after_ms=pause_ms,
        daily=outcome is Outcome.THROTTLED and _is_daily(error),
    )


def _is_daily(error: grpc.aio.AioRpcError) -> bool:
    """Tell whether it is the quota of the day: its name, in the message or beside it."""
    said = [error.details() or "", *map(str, _details(error, error_details_pb2.QuotaFailure))]
    return any(sign in text for sign in PER_DAY for text in said)


def retry_delay_ms(error: grpc.aio.AioRpcError) -> int | None:
    """Return the pause that the server asks for (google.rpc.RetryInfo), in ms; None if none."""
    for info in _details(error, error_details_pb2.RetryInfo):
        pause_ms: int = info.retry_delay.ToMilliseconds()
        return pause_ms if pause_ms > 0 else None  # 0 s is no advice
    return None


def _details(error: grpc.aio.AioRpcError, kind: Any) -> list[Any]:
    """Return what the server says of an error beside its message, of one kind."""
    for key, value in error.trailing_metadata() or ():
        if key != "grpc-status-details-bin":
            continue
        try:
            details = status_pb2.Status.FromString(value).details
            return [kind.FromString(d.value) for d in details if d.Is(kind.DESCRIPTOR)]
        except DecodeError:
            return []
    return []
