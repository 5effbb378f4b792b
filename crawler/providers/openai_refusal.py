"""From what an OpenAI-compatible server says instead of an answer to the outcome of the call.

Rule: pure; a key that a server echoes is in no reason, and a reason is one short line.
"""

import json
import re
import time
from collections.abc import Mapping, Sequence
from datetime import UTC
from email.utils import parsedate_to_datetime
from types import MappingProxyType
from typing import Any

from crawler.protocol import ProviderError
from crawler.redaction import redacted
from crawler.states import Outcome

PER_DAY = ("per day", "(RPD)", "(TPD)", "exceeded your current quota")
"""How servers say that it is the quota of the day, or the money, that is gone."""
REASON_LENGTH = 300
TRANSIENT_CODES = frozenset({408, 409, 425})
_STATUS = re.compile("[45][0-9]{2}")

# What the servers in use call their errors, in `code` or in `type`, where they give no number.
_NAMED: Mapping[str, Outcome] = MappingProxyType(
    {
        "authentication_error": Outcome.DENIED,
        "invalid_api_key": Outcome.DENIED,
        "permission_error": Outcome.DENIED,
        "insufficient_quota": Outcome.THROTTLED,
        "rate_limit_error": Outcome.THROTTLED,
        "rate_limit_exceeded": Outcome.THROTTLED,
        "content_filter": Outcome.BLOCKED,
        "content_policy_violation": Outcome.BLOCKED,
        "context_length_exceeded": Outcome.REJECTED,
        "exceed_context_size_error": Outcome.REJECTED,
        "invalid_request_error": Outcome.REJECTED,
        "model_not_found": Outcome.REJECTED,
        "not_found_error": Outcome.REJECTED,
        "not_supported_error": Outcome.REJECTED,
    }
)


def refusal(
    status: int, headers: Mapping[str, str], body: bytes, secrets: Sequence[str]
) -> ProviderError:
    """Return the error that a response with another status than 200 stands for."""
    outcome, message = _outcome(status), _message(body, secrets)
    return ProviderError(
        outcome,
        f"HTTP {status}: {message}",
        status_code=status,
        retry_after_ms=retry_after_ms(headers, time.time()) or None,  # 0 s is no advice
        daily=outcome is Outcome.THROTTLED and any(sign in message for sign in PER_DAY),
    )


def refusal_in_stream(error: Any, event: bytes, secrets: Sequence[str]) -> ProviderError:
    """Return the error that an event tells of: after a status of 200, all that is left to go by."""
    said = error if isinstance(error, dict) else {}
    reason = f"the server broke off: {_message(event, secrets)}"
    for name in (str(said.get("code")), str(said.get("type"))):
        if _STATUS.fullmatch(name):
            return ProviderError(_outcome(int(name)), reason, status_code=int(name))
        if name in _NAMED:
            return ProviderError(_NAMED[name], reason)
    return ProviderError(Outcome.TRANSIENT, reason)


def breakage(error: Exception, secrets: Sequence[str]) -> ProviderError:
    """Return the error that a connection stands for which broke before the answer was whole."""
    return ProviderError(Outcome.TRANSIENT, f"the connection broke: {cause(error, secrets)}")


def cause(error: Exception, secrets: Sequence[str]) -> str:
    """Return what an exception says, in one short line."""
    return _short(str(error) or type(error).__name__, secrets)


def retry_after_ms(headers: Mapping[str, str], now_s: float) -> int | None:
    """Return the pause that a server asks for: retry-after-ms, Retry-After (RFC 9110, 10.2.3)."""
    try:
        if "retry-after-ms" in headers:
            return max(0, round(float(headers["retry-after-ms"])))
        value = headers.get("Retry-After")
        if value is None:
            return None
        if value.strip().isdigit():
            return int(value) * 1000
        date = parsedate_to_datetime(value)
        if date.tzinfo is None:
            date = date.replace(tzinfo=UTC)
        return max(0, round((date.timestamp() - now_s) * 1000))
    except (OverflowError, ValueError):
        return None


def _outcome(status: int) -> Outcome:
    if status in (401, 403):
        return Outcome.DENIED
    if status == 429:  # noqa: PLR2004 - Too Many Requests
        return Outcome.THROTTLED
    if status >= 500 or status in TRANSIENT_CODES:  # noqa: PLR2004 - server errors
        return Outcome.TRANSIENT
    return Outcome.REJECTED


def _message(body: bytes, secrets: Sequence[str]) -> str:
    try:
        error = json.loads(body)["error"]
        message = error["message"] if isinstance(error, dict) else error
    except (KeyError, RecursionError, TypeError, ValueError):
        message = body.decode("utf-8", "replace")
    return _short(str(message), secrets)


def _short(text: str, secrets: Sequence[str]) -> str:
    return redacted(" ".join(text.split()), secrets)[:REASON_LENGTH]
