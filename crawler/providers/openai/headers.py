"""The headers that a user adds: ``--param headers='{"X-Title": "crawl", "X-Key": "$VARIABLE"}'``.

Rule: a value that is exactly ``$NAME`` is read from the environment when a call is made. The name
is on record, and what it stands for never.
"""

import os
import re
from collections.abc import Mapping
from typing import Any

from crawler.errors import CrawlerError, Exit
from crawler.providers.openai.servers import server_of
from crawler.redaction import remember

HEADERS = "headers"
_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_VARIABLE = re.compile(r"\$([A-Za-z_][A-Za-z0-9_]*)")
_OURS = ("connection", "content-length", "content-type", "host", "te", "transfer-encoding")
_KEYS = ("api-key", "authorization", "cookie", "proxy-authorization", "x-api-key", "x-goog-api-key")


def check_headers(params: Mapping[str, Any]) -> None:
    """Refuse headers that can't be sent, and keys that would be recorded. Raises CrawlerError."""
    headers = params.get(HEADERS, {})
    fault = _fault(headers)
    if fault:
        raise CrawlerError(
            "the parameter headers can't be used",
            fault,
            """--param headers='{"X-Title": "crawl", "X-Key": "$MY_VARIABLE"}'""",
            Exit.USAGE,
        )


def _fault(headers: Any) -> str | None:
    if not isinstance(headers, dict):
        return "it has to be an object of names and texts"
    for name, value in headers.items():
        if not _NAME.fullmatch(name) or name.lower() in _OURS:
            return f"{name!r} is no header that can be added"
        if not isinstance(value, str) or not _is_sendable(value):
            return f"the value of {name} is no text that can be sent"
        if name.lower() in _KEYS and not _VARIABLE.fullmatch(value):
            return f"{name} is a secret, and would be recorded: name a variable that holds it"
    return None


def added_headers(params: Mapping[str, Any]) -> dict[str, str]:
    """Return the headers that a user adds, as they are sent. Raises CrawlerError."""
    return {name: _resolved(name, value) for name, value in params.get(HEADERS, {}).items()}


def _resolved(header: str, value: str) -> str:
    match = _VARIABLE.fullmatch(value)
    if match is None:
        return value
    found = os.environ.get(match[1], "").strip()
    if found and _is_sendable(found):
        remember([found])
        return found
    raise CrawlerError(
        f"there is nothing to send as the header {header}",
        f"{match[1]} {'holds what can not be sent' if found else 'is not set'}",
        f"export {match[1]}=…",
        Exit.CONFIGURATION,
    )


def usual_headers(name: str) -> dict[str, str]:
    """Return what a server is sent beside its key, where the environment says so."""
    values = {
        header: next((os.environ[one].strip() for one in names if os.environ.get(one)), "")
        for header, names in server_of(name).variables.items()
    }
    return {header: value for header, value in values.items() if value and _is_sendable(value)}


def _is_sendable(value: str) -> bool:
    return value.isascii() and value.isprintable()
