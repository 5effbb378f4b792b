"""From the error of a gRPC call to the outcome of the attempt.

Rule: by the status code and by what it says, never by an exception's class. Here is only what gRPC
itself says on this side of the connection; what a service says is read where all others are.
"""

import re
from collections.abc import Sequence

import grpc

from crawler.clock import wall_ms
from crawler.protocol import ProviderError
from crawler.providers.answers.reply import error_of
from crawler.providers.refusals.decision import broken_connection, refusal_of
from crawler.providers.refusals.said import Said
from crawler.providers.refusals.told import told_of
from crawler.providers.vertex.status_details import details_of
from crawler.redaction import redacted
from crawler.states import Outcome
from crawler.states.kinds import Kind

REASON_LENGTH = 300
BAD_REQUEST = 400
_ELSEWHERE = " (is it served where GOOGLE_CLOUD_LOCATION says? global has most)"

TOO_LARGE = "larger than max"  # said by our own side of the connection
LOST = ("socket closed", "connection reset", "broken pipe", "goaway", "stream removed")
"""Said by our own side of a connection that was lost, with all the calls on it."""
NOBODY_THERE = (
    "failed to connect to all addresses",
    "errors resolving",
    "DNS resolution failed",
    "ping timeout",  # it is frozen, or the way to it is gone
    "keepalive watchdog timeout",
)


NEVER_PROCESSED = "RST_STREAM with error code 7"  # REFUSED_STREAM of RFC 9113, section 8.7
_HTTP_STATUS = re.compile(r"http2 header with status: (\d{3})\b")
"""Of who answers without gRPC: a proxy, a front end."""


def is_never_processed(error: grpc.aio.AioRpcError) -> bool:
    """Tell whether the other side has said that it did nothing with the call."""
    return NEVER_PROCESSED in (error.details() or "")


def refused(error: grpc.aio.AioRpcError, secrets: Sequence[str] = ()) -> ProviderError:
    """Return what an error says of the attempt, without some secrets."""
    name, said = error.code().name, error.details() or ""
    reason = redacted(f"{name}: {' '.join(said.split())}", secrets)[:REASON_LENGTH]
    if name == "RESOURCE_EXHAUSTED" and TOO_LARGE in said:
        return ProviderError(Outcome.REJECTED, reason, status_code=429, kind=Kind.WORD)
    if name == "UNAVAILABLE" and any(sign in said for sign in NOBODY_THERE):
        told = error_of(broken_connection("refused", reason))
        told.status_code = 503
        return told
    details = details_of(error.trailing_metadata())
    status, code = _http_status(said), name
    if status is not None:
        code = ""  # gRPC's own is a guess, made of the status
    asked = Said(status, {}, said, code, details, "vertex", now_ms=wall_ms(), secrets=secrets)
    found = refusal_of(asked)
    if found.kind is Kind.MODEL_MISSING:
        reason = f"{reason[: REASON_LENGTH - len(_ELSEWHERE)]}{_ELSEWHERE}"
    refusal = error_of(found._replace(reason=reason))
    refusal.told = told_of(asked)
    if name == "UNAVAILABLE" and any(sign in said.lower() for sign in LOST):
        refusal.kind = Kind.TRANSIENT  # no server has said that
    return refusal


def _http_status(said: str) -> int | None:
    found = _HTTP_STATUS.search(said)
    # A redirect, or a 400 of who speaks no gRPC, says less of the call than gRPC's own code.
    return int(found[1]) if found and int(found[1]) > BAD_REQUEST else None
