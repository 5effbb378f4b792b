"""What a server tells of its quotas: in the headers of a response, or in details of a refusal.

Rule: pure, and nothing is guessed. A limit whose window is not known for sure is a hint (`per` is
None), and never one of a minute: many names mean the minute with one service and the day, or a
second, with another.

The window follows from a name (``…-minute``, ``PerDay``), from a policy (``w=60``), or from how
long the quota needs to be full again: what was used of it flows in at the rate of the limit, or all
of it comes back at the end of the window.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from crawler.protocol import Told
from crawler.providers.refusals.retry_time import read_time
from crawler.providers.refusals.said import Said, decoded, json_of

MOST = 10**9
"""A higher limit is none."""
MINUTE_MS, HOUR_MS, DAY_MS = 60_000, 3_600_000, 86_400_000
SHORT_MS = 10_000
"""Some services count seconds, up to so many: a window that lasts for longer is a minute."""
_EXACT = 0.15
"""How far a window that is reckoned may be from the minute or the day: resets are rounded."""
_NONE = -1

# limit, remaining, reset; what is counted; the window, where the name says it.
_HEADERS: Sequence[tuple[str, str, str, str, str | None]] = [
    (f"x-ratelimit-limit-{name}", f"x-ratelimit-remaining-{name}", f"x-ratelimit-reset-{name}", *of)
    for name, *of in (
        ("requests", "requests", None),
        ("tokens", "tokens", None),
        ("requests-minute", "requests", "minute"),
        ("req-minute", "requests", "minute"),
        ("tokens-minute", "tokens", "minute"),
        ("requests-day", "requests", "day"),
    )
] + [
    (f"{start}-limit", f"{start}-remaining", f"{start}-reset", what, "minute")
    for start, what in (
        ("anthropic-ratelimit-requests", "requests"),
        ("anthropic-ratelimit-tokens", "tokens"),
    )
]
_POLICY = re.compile(r"q=(\d{1,10})\s{0,3};\s{0,3}w=(\d{1,8})")
_OLD_POLICY = re.compile(r"\b(\d{1,10})\s{0,3};\s{0,3}w=(\d{1,8})")


def told_of(said: Said) -> tuple[Told, ...]:
    """Return what a response tells of quotas; nothing where it tells none. Never raises."""
    found = [*_in_headers(said), *_in_policies(said.headers)]
    if said.code or (said.status is not None and said.status >= 400):  # noqa: PLR2004 - HTTP
        found += _in_details(said)
    return tuple(found)


def _in_headers(said: Said) -> Iterator[Told]:
    for name, remaining_name, reset_name, what, named in _HEADERS:
        if name not in said.headers:
            continue
        limit = _number(said.headers.get(name))
        if not 0 < limit <= MOST:
            continue
        remaining = _number(said.headers.get(remaining_name))
        reset_ms = read_time(said.headers.get(reset_name) or "", said.now_ms)
        per = named or _window(limit, remaining, reset_ms)
        if what == "requests" and "groq" in said.service:
            per = "day"
        yield Told(what, limit, per, None if remaining == _NONE else remaining, reset_ms)


def _window(limit: int, remaining: int, reset_ms: int | None) -> str | None:
    """Return the window that a quota flows in again in; None where that can't be told."""
    if reset_ms is None or not 0 <= remaining < limit or reset_ms <= 0:
        return None
    window_ms = reset_ms * limit / (limit - remaining)
    for per, length_ms in (("minute", MINUTE_MS), ("day", DAY_MS), (None, HOUR_MS)):
        if abs(window_ms / length_ms - 1) <= _EXACT:
            return per
    return "minute" if SHORT_MS < reset_ms <= MINUTE_MS else None


def _in_policies(headers: Mapping[str, str]) -> Iterator[Told]:
    """Read the IETF's drafts: ``RateLimit-Policy: "default";q=100;w=60``, ``100, 100;w=60``."""
    if "ratelimit-policy" not in headers and "ratelimit-limit" not in headers:
        return
    policies = _POLICY.findall((headers.get("ratelimit-policy") or "")[:1_000])
    policies += _OLD_POLICY.findall((headers.get("ratelimit-limit") or "")[:1_000])
    for number, seconds in policies:
        limit, window_ms = int(number), int(seconds) * 1_000
        per = {MINUTE_MS: "minute", DAY_MS: "day"}.get(window_ms)
        if 0 < limit <= MOST:
            yield Told("requests", limit, per)


def _in_details(said: Said) -> Iterator[Told]:
    """Read Google's ErrorInfo and QuotaFailure, which name the quota that has refused a call."""
    for detail in [*said.details, *_details_in(json_of(decoded(said.body)))]:
        metadata = detail.get("metadata")
        if isinstance(metadata, Mapping):
            name = f"{metadata.get('quota_metric')} {metadata.get('quota_limit')}"
            yield from _of_google(name, metadata.get("quota_limit_value"))
        violations = detail.get("violations")
        for one in violations if isinstance(violations, list) else []:
            if isinstance(one, Mapping):
                name = f"{one.get('quotaMetric')} {one.get('quotaId')}"
                yield from _of_google(name, one.get("quotaValue"))


def _details_in(body: Any) -> list[Mapping[str, Any]]:
    inner = body[0] if isinstance(body, list) and body else body
    error = inner.get("error") if isinstance(inner, Mapping) else None
    details = error.get("details") if isinstance(error, Mapping) else None
    return [one for one in details if isinstance(one, Mapping)] if isinstance(details, list) else []


def _of_google(name: str, value: object) -> Iterator[Told]:
    limit, name = _number(value), name.lower().replace("_", "")
    per = "day" if "perday" in name else "minute" if "perminute" in name else None
    if 0 < limit <= MOST and per:
        yield Told("tokens" if "token" in name else "requests", limit, per)


def _number(value: object) -> int:
    """Return a whole number that is written in digits; -1 for anything else."""
    text = str(value).strip() if isinstance(value, str | int) else ""
    return (
        int(text) if text.isascii() and text.isdecimal() and len(text) <= len(str(MOST)) else _NONE
    )
