"""What a refusal means: the one place that says so, for whatever came instead of a good answer.

Rule: pure. From a status line with headers and a body, an error inside a 200, an error event of a
stream, a gRPC status or a line of a batch's result to one `Refusal`. The rules are data: the words
in `words`, their order in `rules`, what follows from a kind in `states.kinds`.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from crawler.providers.refusals.retry_time import pause_ms
from crawler.providers.refusals.rules import (
    ANY,
    LIMITED,
    NAMED_STATUS,
    NOTHING,
    RULES,
    STATUS_ALONE,
    SURE_STATUSES,
)
from crawler.providers.refusals.said import (
    Said,
    Text,
    decoded,
    json_of,
    plain,
    sentence,
    text_of,
)
from crawler.states.kinds import MEANINGS, Kind, Refusal, Scope

MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS
_DAY_BY_HEADER = "x-ratelimit-remaining-requests-day"
_SAME_FOR_NO_MONEY = ("mistral", "perplexity")
"""Services that answer a used-up budget with the very bytes of a wrong key."""
_GOOGLE = ("google", "gemini", "vertex")
_MAX_TOKENS = ("max tokens", "max new tokens", "max completion tokens", "in the completion")
"""Where no word has passed, a limit of tokens may be too large for every word of the prompt."""
_MOST_DIGITS = 15


class Verdict(NamedTuple):
    """What was said, before anything follows from it."""

    kind: Kind
    certain: bool = True
    scope: Scope | None = None
    remedy: str = ""


def refusal_of(said: Said) -> Refusal:
    """Return what a refusal means. Never raises, whatever was said."""
    text = text_of(said)
    words = plain(text)
    status = status_of(said)
    asked_ms = _asked_ms(said, text)
    found = _verdict(said, words, status, asked_ms)
    if found.kind is Kind.WORD and not said.served_before and words.says(_MAX_TOKENS):
        found = found._replace(certain=False)
    meaning = MEANINGS[found.kind]
    return Refusal(
        found.kind,
        found.scope or meaning.scope,
        found.certain,
        sentence(said, status),
        status,
        _pause_ms(asked_ms, words, found.kind),
        found.remedy or meaning.remedy,
    )


def status_of(said: Said) -> int | None:
    """Return the status code that counts; of an error inside a 200 it is its own, or None."""
    if said.code:
        return NAMED_STATUS.get(said.code.lower(), said.status)
    if said.status is not None and not 200 <= said.status < 300:  # noqa: PLR2004 - success
        return said.status
    inner = _inner_status(json_of(decoded(said.body)))
    return said.status if inner is None and said.status in (201, 202) else inner


def _inner_status(value: Any) -> int | None:
    """Return the status code in an error object, as a number or by the name of the error."""
    for _ in range(4):
        if isinstance(value, list):
            value = value[0] if value else None
        if not isinstance(value, Mapping):
            return None
        for key in ("code", "status", "status_code", "type"):
            found = _as_status(value.get(key))
            if found is not None:
                return found
        value = value.get("error") or value.get("errors") or value.get("base_resp")
    return None


def _as_status(value: Any) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    name = str(value).lower()
    if name.isdecimal() and len(name) == 3 and 400 <= int(name) < 600:  # noqa: PLR2004 - HTTP
        return int(name)
    return NAMED_STATUS.get(name)


def _verdict(said: Said, words: Text, status: int | None, asked_ms: int | None) -> Verdict:
    """Apply the rules in their order."""
    return (
        _redirect(said, status)
        or _page(said, words, status)
        or _day_by_header(said, status)
        or _asks_too_much(words, status)
        or _quota_of_google(said, words, status)
        or _by_words(words, status, asked_ms)
        or _by_status(said, status)
    )


def _by_words(words: Text, status: int | None, asked_ms: int | None) -> Verdict | None:
    soon = asked_ms is not None and asked_ms < HOUR_MS
    for rule in RULES:
        fits = rule.statuses is ANY or (status or 0) in rule.statuses
        fits = fits and not (soon and rule.unless_soon) and words.says(rule.words)
        if fits and words.says(rule.beside or rule.words) and not words.says(rule.unless):
            return Verdict(rule.kind, scope=rule.scope, remedy=rule.remedy)
    return None


def _by_status(said: Said, status: int | None) -> Verdict:
    """Return what a status code alone says: nothing certain, for most of them."""
    kind = STATUS_ALONE.get(status or 0)
    if kind is None:
        is_client = status is not None and 400 <= status < 500  # noqa: PLR2004 - HTTP
        kind = Kind.UNCLEAR if is_client else _of_nothing(said, status)
    if kind is Kind.FORBIDDEN and not said.served_before:
        kind = Kind.CREDENTIALS
    if kind is Kind.CREDENTIALS and said.served_before and _is_one_of(said, _SAME_FOR_NO_MONEY):
        both = "pay or raise the budget of the key; if there is money, set a key that is valid"
        return Verdict(Kind.MONEY, certain=False, remedy=both)
    return Verdict(kind, certain=status in SURE_STATUSES)


def _of_nothing(said: Said, status: int | None) -> Kind:
    """Return what no status code of an error says: an empty body, a form that we don't know."""
    if status is not None or said.code:
        return Kind.TRANSIENT
    body = decoded(said.body)
    if said.status == 200 and body and not body.strip():  # noqa: PLR2004 - blank lines of a queue
        return Kind.OVERLOADED
    value = json_of(body)
    says_error = isinstance(value, Mapping) and bool(value.get("error") or value.get("errors"))
    return Kind.TRANSIENT if says_error or said.status is None else Kind.NOT_AN_ANSWER


def _redirect(said: Said, status: int | None) -> Verdict | None:
    """Return what a redirect says; it leads to another address, to a login, or to a portal."""
    if status is None or not 300 <= status < 400:  # noqa: PLR2004 - HTTP
        return None
    to = {name.lower(): value for name, value in said.headers.items()}.get("location", "").lower()
    if "accounts.google" in to or "oauth" in to:
        return Verdict(Kind.CREDENTIALS)
    if not to or "/v1" in to or "completions" in to or "login" not in to:
        return Verdict(Kind.CONFIGURATION, remedy="set the address that the server redirects to")
    return Verdict(Kind.NETWORK_BLOCKED)


_LOGIN = ("login", "log in", "sign in", "wi fi", "wifi", "portal", "hotel", "blocked", "block page")


def _page(said: Said, words: Text, status: int | None) -> Verdict | None:
    """Return what a web page with status 200 says: a portal's, or that of a wrong address."""
    if status is not None or said.code or said.status is None:
        return None
    start = decoded(said.body)[:1_000].lower()
    if "<html" not in start and "<!doctype" not in start:
        return None
    portal = words.says(_LOGIN) and not words.says(("welcome to nginx",))
    return Verdict(Kind.NETWORK_BLOCKED if portal else Kind.CONFIGURATION)


def _day_by_header(said: Said, status: int | None) -> Verdict | None:
    headers = {name.lower(): value.strip() for name, value in said.headers.items()}
    used_up = status in LIMITED and headers.get(_DAY_BY_HEADER) == "0"
    return Verdict(Kind.THROTTLED_DAY) if used_up else None


def _asks_too_much(words: Text, status: int | None) -> Verdict | None:
    """More is requested than the limit is: this word can't pass, whenever it is asked."""
    if status not in LIMITED or not words.says(("token", "tpm$", "tpd$")):
        return None
    limit, requested = _number_after(words, "limit"), _number_after(words, "requested")
    too_much = limit is not None and requested is not None and 0 < limit < requested
    return Verdict(Kind.TOO_LARGE_FOR_QUOTA) if too_much else None


def _number_after(words: Text, name: str) -> int | None:
    """Return the first number that directly follows a word."""
    at, mark = -1, f" {name} "
    for _ in range(8):
        at = words.words.find(mark, at + 1)
        if at < 0:
            return None
        number = words.words[at + len(mark) :][: _MOST_DIGITS + 1].partition(" ")[0]
        if number.isdecimal():
            return int(number)
    return None


def _quota_of_google(said: Said, words: Text, status: int | None) -> Verdict | None:
    """Gemini's "exceeded your current quota": its `quotaId` says which, the day before the minute.

    Where none says it, it is the minute: it is never money.
    """
    ours = words.says(("exceeded your current quota",)) and (
        _is_one_of(said, _GOOGLE) or words.says(("resource exhausted",)) or said.code
    )
    if status != 429 or not ours or words.says(NOTHING):  # noqa: PLR2004 - HTTP
        return None
    if words.says(("per day", "upgrade your quota tier")) and not _only_minutes(words):
        return Verdict(Kind.THROTTLED_DAY)
    tokens = words.says(("tokens per", "input tokens", "token count"))
    return Verdict(Kind.THROTTLED_TOKENS if tokens else Kind.THROTTLED_MINUTE)


def _only_minutes(words: Text) -> bool:
    return words.says(("per minute",)) and not words.says(("per day",))


def _is_one_of(said: Said, services: tuple[str, ...]) -> bool:
    service = said.service.lower()
    return any(name in service for name in services)


def _asked_ms(said: Said, text: str) -> int | None:
    """Return the pause that is asked for."""
    delays = [str(one.get("retryDelay", "")) for one in said.details if "retryDelay" in one]
    return pause_ms(said.headers, text, said.now_ms, delays)


def _pause_ms(found: int | None, words: Text, kind: Kind) -> int | None:
    """Return the pause that is asked for, as far as the kind makes it one."""
    if kind is Kind.MODEL_LOADING:
        return max(found or 0, MINUTE_MS)  # for so long a run waits for it
    if kind is Kind.THROTTLED_DAY and words.says(("retry delay", "please retry in")):
        # A short one that stands beside the day means the minute.
        return found if found is not None and found >= HOUR_MS else None
    if words.says(("rst stream with error code 7",)):
        return 0  # it was not processed
    return found


CONNECTIONS: Mapping[str, Verdict] = MappingProxyType(
    {
        "refused": Verdict(Kind.NETWORK),
        "dns": Verdict(Kind.NETWORK, remedy="mend the name in the address, or the network"),
        "timeout": Verdict(Kind.NETWORK),
        "closed": Verdict(Kind.TRANSIENT),
        "reset": Verdict(Kind.TRANSIENT),
        "half": Verdict(Kind.HALF),
        "not_http": Verdict(
            Kind.CONFIGURATION, remedy="mend the address: what is at that port speaks no HTTP"
        ),
        "tls": Verdict(Kind.CONFIGURATION, remedy="write http:// in the address, or mend its port"),
        "certificate": Verdict(Kind.CERTIFICATE),
    }
)
"""How a call can end without a response, and what that means."""


def broken_connection(how: str, reason: str) -> Refusal:
    """Return what a connection means that failed: `how` is a name of `CONNECTIONS`."""
    found = CONNECTIONS[how]
    meaning = MEANINGS[found.kind]
    remedy = found.remedy or meaning.remedy
    return Refusal(found.kind, meaning.scope, found.certain, reason, remedy=remedy)
