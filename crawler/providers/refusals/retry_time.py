"""When a server wants to be asked again: read from its headers, its words and what it sends beside.

Rule: pure, in linear time, and the server's own clock: a date is read against the `Date` of the
response. Nothing that can't be read is advice, and neither is a pause of nothing.

The order is that of trust: what is said of this very request (`retry-after-ms`, `Retry-After`,
RetryInfo), words in the body, and only then the `…-reset` headers, which tell when a quota is full
again and not when one call is free.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

MOST_MS = 366 * 86_400_000
"""A longer pause is no advice, but a number that means something else."""
_EPOCH_S = 10**9
_EPOCH_MS = 10**12
_MOST_HEADER = 64
_AHEAD = 64
"""Characters after a cue in which the time has to stand."""
_MOST_CUES = 4
"""Places of one cue that are tried: a text that says it more often is no advice."""

# Each at most once a place, and all with bounds: none can run for long.
_NUMBER = re.compile(r"\s{0,3}(\d{1,15}(?:\.\d{1,15})?)\s{0,3}([a-zA-Z]{0,12})")
_CLOCK = re.compile(r"(?:(\d{1,3})\.)?(\d{1,3}):(\d\d):(\d\d)")
_DATE = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)(?:[Tt ]| at )(\d\d):(\d\d)(?::(\d\d)(?:\.\d{1,9})?)?"
    r" ?(?:([+-])(\d\d):?(\d\d))?"
)
_UNITS: Mapping[str, int] = {
    **dict.fromkeys(("ms", "msec", "msecs", "millisecond", "milliseconds"), 1),
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds"), 1_000),
    **dict.fromkeys(("m", "min", "mins", "minute", "minutes"), 60_000),
    **dict.fromkeys(("h", "hr", "hrs", "hour", "hours"), 3_600_000),
    **dict.fromkeys(("d", "day", "days"), 86_400_000),
}
_FILLERS = (
    "about",
    "approximately",
    "at least",
    "another",
    "seconds:",
    "after",
    "for",
    "at",
    "on",
    "of",
)
_NAMED_UNITS = (("_ms", 1), ("ms", 1), ("_seconds", 1_000), ('seconds"', 1_000))
"""Units within a name, as in ``retry_after_ms``, with their milliseconds."""
_ONE = ("a ", "an ", "one ")

CUES = (
    "retry_delay",
    "retrydelay",
    "try again in",
    "retry in",
    "retry after",
    "retry_after",
    "retryafter",
    "retry-after",
    "available in",
    "estimated_time",
    "replenished in",
    "reset in",
    "resets in",
    "reset after",
    "resets after",
    "resets at",
    "reset at",
    "reset_at",
    "resets_at",
    "regain access on",
    "regain access at",
    "try again at",
    "try again after",
    "try again on",
    "retry at",
    "your request after",
    "your requests after",
    "please wait",
    "wait for",
    "cooldown",
    "x-ratelimit-reset",
)
"""After which words a time stands, in lower case; the first of them that has one counts."""

_POLL = "nvcf-poll-seconds"


def pause_ms(
    headers: Mapping[str, str], text: str, now_ms: int, delays: Iterable[str] = ()
) -> int | None:
    """Return the pause that a server asks for, in ms; None if it asks for none.

    Args:
        headers: of the response, in whatever case.
        text: the body, or what a status says.
        now_ms: our time, for dates where the response has none of its own.
        delays: RetryInfo's delays, such as "43s".

    """
    lower = {name.lower(): value.strip() for name, value in headers.items()}
    now_ms = _http_date_ms(lower.get("date", "")) or now_ms
    for found in _told(lower, text, now_ms, delays):
        if found is not None and 0 < found <= MOST_MS:
            return found
    return None


def _told(
    headers: Mapping[str, str], text: str, now_ms: int, delays: Iterable[str]
) -> Iterator[int | None]:
    """Yield what each place says, the most trustworthy first."""
    for name in ("retry-after-ms", "x-ms-retry-after-ms"):
        yield _of_ms(headers.get(name, ""))
    for name in ("retry-after", "x-retry-after"):
        yield read_time(_first(headers.get(name, "")), now_ms)
    for delay in delays:
        yield read_time(delay, now_ms)
    yield time_in_words(text, now_ms)
    yield read_time(headers.get(_POLL, ""), now_ms)
    yield read_time(headers.get("ratelimit", "").rpartition("t=")[2], now_ms)
    yield _reset_ms(headers, now_ms)


def read_time(value: str, now_ms: int) -> int | None:
    """Return how long it is until a time or how long a duration is, in ms; None if it is neither.

    A number alone is seconds, or the seconds or milliseconds since 1970 if it is that large.
    """
    value = value.strip()[:_MOST_HEADER]
    found = _date_ms(value, now_ms)
    if found is None:
        length = _duration(value, now_ms)
        found = length[0] if length is not None and length[1] == len(value) else None
    if found is None:
        date_ms = _http_date_ms(value)
        found = None if date_ms is None else date_ms - now_ms
    return found


def _duration(text: str, now_ms: int) -> tuple[int, int] | None:
    """Return the duration that a text begins with, in ms, and where it ends.

    It is written like 1m30.5s, 2 minutes 30 seconds, 01:14:23 or 20.
    """
    clock = _CLOCK.match(text)
    if clock:
        days, hours, minutes, seconds = (int(part or 0) for part in clock.groups())
        return (((days * 24 + hours) * 60 + minutes) * 60 + seconds) * 1_000, clock.end()
    total, at = 0.0, 0
    while (part := _NUMBER.match(text, at)) is not None:
        unit = _UNITS.get(part[2].lower())
        if at and not unit:
            break
        if unit is None or not part[2]:  # what follows is another word, or nothing
            return _of_number(float(part[1]), now_ms), part.end(1)
        total, at = total + float(part[1]) * unit, part.end()
    return (round(total), at) if at else None


def time_in_words(text: str, now_ms: int) -> int | None:
    """Return how long a text asks to wait, in ms; None if it doesn't say."""
    lower = text.lower()
    for cue in CUES:
        for at in _places(lower, cue):
            found = _after_cue(lower[at : at + _AHEAD], now_ms)
            if found is not None and found > 0:
                return found
    return _until_midnight(lower, now_ms)


def _places(text: str, cue: str) -> Iterator[int]:
    """Yield where a cue ends, a few times."""
    at = -1
    for _ in range(_MOST_CUES):
        at = text.find(cue, at + 1)
        if at < 0:
            return
        yield at + len(cue)


def _first(value: str) -> str:
    """Return the first of several numbers: a header that was sent twice has them all."""
    return value.partition(",")[0] if value[:1].isdigit() else value


def _after_cue(said: str, now_ms: int) -> int | None:
    for unit, ms in _NAMED_UNITS:
        if said.startswith(unit):
            length = _duration(said[len(unit) :].lstrip(" \"':="), 0)
            return None if length is None else length[0] * ms // 1_000
    said = said.lstrip(" \t\r\n\"'\\:={}(,~")
    for filler in _FILLERS:
        if said.startswith(filler):
            said = said[len(filler) :].lstrip(" \t\"'\\:=(")
    if said.startswith(_ONE):
        unit = said.partition(" ")[2]
        said = f"1 {unit}" if _UNITS.get(unit.strip(" .,").partition(" ")[0].rstrip(".,")) else ""
    if not said[:1].isdigit():
        return None
    found = _date_ms(said, now_ms)
    if found is not None:
        return found
    length = _duration(said, now_ms)
    return None if length is None else length[0]


def _until_midnight(text: str, now_ms: int) -> int | None:
    if "midnight utc" not in text and "00:00 utc" not in text:
        return None
    return 86_400_000 - now_ms % 86_400_000


def _of_ms(value: str) -> int | None:
    try:
        return round(float(value[:_MOST_HEADER]))
    except (OverflowError, ValueError):
        return None


def _of_number(number: float, now_ms: int) -> int:
    if number > _EPOCH_MS:
        return round(number) - now_ms
    if number > _EPOCH_S:
        return round(number * 1_000) - now_ms
    return round(number * 1_000)


def _date_ms(text: str, now_ms: int) -> int | None:
    """Return how long it is until the date that a text begins with, read as UTC."""
    found = _DATE.match(text)
    if found is None:
        return None
    year, month, day, hour, minute, second = (int(part or 0) for part in found.groups()[:6])
    try:
        date = datetime(year, month, day, hour, minute, second, tzinfo=UTC)
    except ValueError:
        return None
    ahead = timedelta(hours=int(found[8] or 0), minutes=int(found[9] or 0))
    away = date - ahead if found[7] == "+" else date + ahead
    return round(away.timestamp() * 1_000) - now_ms


def _http_date_ms(value: str) -> int | None:
    """Return what a date in a header says, in ms since 1970."""
    if not value[:3].isalpha():  # it begins with the name of a day
        return None
    try:
        date = parsedate_to_datetime(value[:_MOST_HEADER])
        return round((date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() * 1_000)
    except (OverflowError, ValueError):
        return None


def _reset_ms(headers: Mapping[str, str], now_ms: int) -> int | None:
    """Return when the quotas that are used up are full again; where none says so, the first.

    That of the day counts only where it is known to be used up: it stands beside every refusal. A
    quota that has calls left is not why this one was refused; one that has tokens left may be.
    """
    used_up, others = [], []
    for name, value in headers.items():
        found = read_time(value, now_ms) if "limit" in name and "reset" in name else None
        if found is None or found <= 0:
            continue
        left = headers.get(name.replace("reset", "remaining"), "")
        if left.startswith(("0", "-")):
            used_up.append(found)
        elif "day" not in name and ("token" in name or not left.isdecimal()):
            others.append(found)
    return max(used_up) if used_up else min(others, default=None)
