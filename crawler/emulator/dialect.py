"""What a service's HTTP has of its own: how it asks, answers, streams and refuses.

Rule: pure. What is decided about a request is the same, whoever asks.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from crawler.emulator.answers import Answer
from crawler.emulator.http_server import Reply
from crawler.emulator.refusals import Status
from crawler.emulator.wire import Asked

HTTP_STATUSES = {
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
"""As google/rpc/code.proto has them."""


class Dialect(NamedTuple):
    """The words of one service."""

    asked: Asked
    """What was asked."""
    method: str
    """What the log calls it."""
    whole: Callable[[Sequence[Answer]], Reply]
    """Say answers at once."""
    events: Callable[[Answer], Sequence[bytes]] | None
    """Say an answer in pieces; None where it was asked for at once."""
    refuse: Callable[[Status, str | None], Reply]
    """Say a status, and which quota it is of, if of any."""


def event(body: bytes) -> bytes:
    """Return an event of a stream (text/event-stream)."""
    return b"data: " + body + b"\n\n"
