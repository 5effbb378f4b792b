"""From the error of a gRPC call to the outcome of the attempt.

Rule: by the status code and by what it says, never by an exception's class. Here is only what gRPC
itself says on this side of the connection; what a service says is read where all others are.
"""

from collections.abc import Sequence

import grpc

from crawler.clock import wall_ms
from crawler.protocol import ProviderError
from crawler.providers.refusal import broken_connection, refusal_of
from crawler.providers.refusal_text import Said
from crawler.providers.reply import error_of
from crawler.providers.told import told_of
from crawler.providers.vertex.status_details import details_of
from crawler.redaction import redacted
from crawler.states import Outcome
from crawler.states.kinds import Kind

REASON_LENGTH = 300

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
    asked = Said(None, {}, said, name, details, "vertex", now_ms=wall_ms(), secrets=secrets)
    found = error_of(refusal_of(asked)._replace(reason=reason))
    found.told = told_of(asked)
    if name == "UNAVAILABLE" and any(sign in said.lower() for sign in LOST):
        found.kind = Kind.TRANSIENT  # no server has said that
    return found
