"""Log events: a closed list of names, JSON lines on standard error.

Rule: an event is named in the past tense, values stand in fields, and no prompt, answer or key is
ever one of them.
"""

import logging
import sys
from collections.abc import Callable, Mapping, MutableMapping
from contextlib import suppress
from typing import Any, NoReturn, TextIO, cast

import structlog

Log = structlog.typing.FilteringBoundLogger

EVENTS = frozenset(
    {
        "attempt_failed",
        "attempts_abandoned",
        "gate_closed",
        "key_exposed",
        "late_answers_refused",
        "leases_released",
        "progress_reported",
        "limits_set",
        "prompt_changed",
        "run_ended",
        "run_started",
        "stop_requested",
        "tallies_recounted",
    }
)


class _Lenient:
    """A stream that may be closed by whoever reads it; no line of a log is worth a run."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        with suppress(OSError):
            self._stream.write(text)

    def flush(self) -> None:
        with suppress(OSError):
            self._stream.flush()


def json_lines(level: int = logging.INFO, stream: TextIO | None = None) -> Log:
    """Return a logger that writes a JSON object a line, from the given level up."""
    log: Log = structlog.wrap_logger(
        structlog.WriteLogger(cast("TextIO", _Lenient(stream or sys.stderr))),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.EventRenamer("event"),
            structlog.processors.JSONRenderer(),  # in ASCII: what a server says stays text
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        cache_logger_on_first_use=True,
    )
    return log


def heard(on_warning: Callable[[str, Mapping[str, Any]], None]) -> Log:
    """Return a logger that writes nothing, and tells each warning: its event and its fields."""

    def tell(_: object, __: str, fields: MutableMapping[str, Any]) -> NoReturn:
        on_warning(fields.pop("event"), fields)
        raise structlog.DropEvent

    log: Log = structlog.wrap_logger(
        None,
        processors=[tell],
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
    )
    return log


def silent() -> Log:
    """Return a logger that says nothing: no event of ours is critical."""
    return json_lines(logging.CRITICAL)
