"""The rules by which a refusal is read: words, and the status codes with which they count.

Rule: data, in order; the first rule that fits decides (`decision`). Phrases are
written as `said.plain` writes a text: lower case, no punctuation, "per day" for `PerDay`.
What names a window or an input stands before what merely sounds like a quota, because servers put
"quota", "billing" and "upgrade" into nearly everything.
"""

from collections.abc import Collection, Mapping
from typing import NamedTuple

from crawler.providers.refusals.words import (
    ADDRESS,
    CAPACITY,
    CONCURRENT,
    DAY,
    EDGE,
    EMPTY_INPUT,
    FILTER,
    GOOGLE,
    INPUT,
    KEY,
    LOADING,
    MINUTE,
    MODEL,
    MONEY,
    NO_MODEL,
    NO_NAME,
    OUTPUT,
    PARAMETER,
    PERMISSION,
    POLICY,
    RATE,
    SLIP,
    TODAY,
    TOKENS,
    TOO_LONG,
    TOO_MANY,
    USED_UP,
)
from crawler.states.kinds import Kind, Scope

ANY: Collection[int] = range(1000)
NOTHING = ("limit 0$", "limit 0 / 0$", "quota limit value 0$", "quota value 0$")
"""A quota that lets nobody in, however long one waits."""
FOUR = range(400, 500)
FIVE = range(500, 600)
LIMITED = (429, 413, 402, 498)
"""Status codes of quotas; 403 is one where its text says so."""
SPENDING = ("monthly … spend", "spend limit", "spending limit")
NOT_KEYS = [code for code in FOUR if code not in (401, 429)]
NOT_PATHS = [*(code for code in FOUR if code not in (404, 405)), *FIVE]


class Rule(NamedTuple):
    """One rule.

    Attributes:
        kind: what it says.
        words: one of these is in the text.
        statuses: the status codes with which they count; 0 stands for none at all.
        unless: none of these is in the text.
        beside: one of these is in the text as well, where there are any.
        unless_soon: no pause under an hour is asked for.
        scope: whose fault it is, where it is not that of the kind.
        remedy: what a person can do, where it is not that of the kind.

    """

    kind: Kind
    words: tuple[str, ...]
    statuses: Collection[int] = ANY
    unless: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()
    unless_soon: bool = False
    scope: Scope | None = None
    remedy: str = ""


RULES: tuple[Rule, ...] = (
    # What stands between us and the server.
    Rule(Kind.NETWORK_BLOCKED, FILTER, [0, *range(200, 300), 403, 407, 511]),
    Rule(Kind.NETWORK, NO_NAME, [0, *FIVE]),
    Rule(Kind.CREDENTIALS, ("metadata from plugin failed", "invalid grant"), [0, *FIVE]),
    Rule(Kind.WORD, ("message larger than max",), [429], scope=Scope.OURS),
    # What only sounds like a quota.
    Rule(
        Kind.TOO_LARGE_FOR_QUOTA,
        (
            "request too large … tpm",
            "request too large … tokens per min",
            "token … retry after 86400 second",
            "weight exceeds budget",
            "larger than the whole in flight",
        ),
        (0, 400, *LIMITED),
    ),
    Rule(Kind.PERMISSION_MODEL, NOTHING, [429]),
    Rule(Kind.CONCURRENCY, ("in flight",), [402]),
    # A window that is named beats "quota", "billing" and "upgrade".
    Rule(Kind.THROTTLED_DAY, DAY, LIMITED, unless=SPENDING),
    Rule(Kind.THROTTLED_DAY, DAY, [0], unless=SPENDING, beside=USED_UP),
    Rule(Kind.THROTTLED_DAY, TODAY, LIMITED, unless=(*SPENDING, *MINUTE), unless_soon=True),
    Rule(
        Kind.THROTTLED_DAY,
        TODAY,
        [0],
        unless=(*SPENDING, *MINUTE),
        beside=USED_UP,
        unless_soon=True,
    ),
    Rule(Kind.THROTTLED_DAY, (*DAY, *TODAY), [403], scope=Scope.ACCOUNT, unless=("credits",)),
    Rule(Kind.THROTTLED_MINUTE, MINUTE, [0, 429], unless=(*TOKENS, *CONCURRENT, *CAPACITY)),
    Rule(Kind.THROTTLED_TOKENS, ("utilization",), [429]),
    Rule(
        Kind.MODEL_LOADING,
        LOADING,
        [0, 400, 404, 425, 429, *FIVE],
        unless=("failed to load", "downloading the image"),
    ),
    # Money, wherever it stands; no minute is named any more.
    Rule(Kind.MONEY, MONEY, [0, *NOT_PATHS], unless=MINUTE),
    Rule(Kind.MONEY, ("exceeded your current quota",), [0, *NOT_PATHS], unless=(*MINUTE, *GOOGLE)),
    # Quotas of the minute, and what is no quota of ours.
    Rule(Kind.CONCURRENCY, CONCURRENT, [0, 429, 503]),
    Rule(Kind.CONCURRENCY, ("overflow",), [503]),
    Rule(Kind.OVERLOADED, CAPACITY, [429]),
    Rule(Kind.THROTTLED_TOKENS, TOKENS, [429]),
    Rule(Kind.THROTTLED_TOKENS, ("on limit",), [429]),
    Rule(Kind.THROTTLED_MINUTE, ("limiting requests",), [503]),
    Rule(Kind.THROTTLED_MINUTE, RATE, [0, 500, 502, 503], unless=CAPACITY),
    Rule(Kind.THROTTLED_MINUTE, RATE, [400], unless=CAPACITY, beside=("exceeded", "reached")),
    Rule(Kind.THROTTLED_MINUTE, RATE, [403]),
    # This input, or what the model made of it.
    Rule(Kind.TRANSIENT, SLIP, scope=Scope.WORD, unless=NO_MODEL),
    Rule(Kind.BLOCKED, POLICY, [0, *FOUR], unless=NO_MODEL),
    Rule(Kind.WORD, TOO_LONG, [0, *FOUR], unless=("supported range", "header")),
    Rule(Kind.WORD, TOO_MANY, [0, 400, 413, 422], unless=OUTPUT, beside=INPUT),
    Rule(Kind.WORD, EMPTY_INPUT, [0, *FOUR]),
    Rule(
        Kind.WORD,
        ("special tokens in the input", "context size has been", "larger than the context"),
        FIVE,
    ),
    # The server, by its words.
    Rule(
        Kind.TRANSIENT,
        (
            "connect error or disconnect",
            "socket closed",
            "rst stream",
            "visibility check",
            "unreachable backend",
            "db not connected",
        ),
        [0, 503],
    ),
    Rule(
        Kind.OVERLOADED,
        CAPACITY,
        [0, 400, 404, 408, 498, 500, 502, 503, 504, 529],
        unless=("had its name changed",),  # IIS's 404
    ),
    Rule(Kind.OVERLOADED, ("slow down",), [503]),
    # What we sent, who we are, what we may; one order for all, since each only names a remedy.
    Rule(Kind.PERMISSION_MODEL, EDGE, [403, 451], scope=Scope.NETWORK),
    Rule(Kind.CONFIGURATION, ADDRESS, [0, *NOT_KEYS, 501], unless=("not found the model",)),
    Rule(Kind.PERMISSION_MODEL, ("missing scopes",), FOUR, scope=Scope.ACCOUNT),
    Rule(Kind.PERMISSION_MODEL, ("not allowed to access",), [401]),
    Rule(Kind.CREDENTIALS, KEY, [0, *FOUR]),
    Rule(Kind.CREDENTIALS, ("unauthorized",), [0, *NOT_KEYS]),  # of a 401 it says nothing new
    Rule(
        Kind.PERMISSION_MODEL,
        ("does not have access to model", "is not allowed to use", "must be verified"),
        FOUR,
        unless=("not exist",),
    ),
    Rule(Kind.MODEL_MISSING, MODEL, [0, *FOUR]),
    Rule(Kind.MODEL_MISSING, ("not exist",), [404]),
    Rule(Kind.CONFIGURATION, ("project … not found", "requested entity was not found"), [0, *FOUR]),
    Rule(
        Kind.MODEL_MISSING,
        ("more system memory", "failed to load model", "unable to load model"),
        FIVE,
    ),
    Rule(Kind.PERMISSION_MODEL, PERMISSION, [0, *NOT_KEYS]),
    Rule(Kind.PERMISSION_MODEL, ("access denied exception", "routing requirements"), FIVE),
    Rule(Kind.PARAMETER, PARAMETER, [0, 400, 404, 410, 422]),
)

# What servers call their errors where they give no number, by the status code that is meant.
_NAMES = {
    400: "content_filter content_policy_violation context_length_exceeded "
    "exceed_context_size_error invalid_request_error invalid_argument "
    "failed_precondition bad_request out_of_range",
    401: "authentication_error invalid_api_key unauthenticated unauthorized",
    402: "billing_error payment_required",
    403: "permission_error permission_denied forbidden",
    404: "not_found_error model_not_found not_found",
    409: "aborted already_exists",
    413: "request_too_large",
    429: "insufficient_quota rate_limit_error rate_limit_exceeded rate_limited "
    "throttling_error resource_exhausted too_many_requests",
    499: "cancelled",
    500: "api_error server_error internal_server_error internal unknown data_loss",
    501: "not_supported_error unimplemented",
    503: "unavailable service_unavailable unavailable_error",
    504: "timeout_error deadline_exceeded",
    529: "overloaded_error",
}
NAMED_STATUS: Mapping[str, int] = {
    name: status for status, names in _NAMES.items() for name in names.split()
}

# What a status code alone says: the last word, after all others.
STATUS_ALONE: Mapping[int, Kind] = {
    **dict.fromkeys((201, 202), Kind.ACCEPTED_LATER),
    400: Kind.UNCLEAR,
    **dict.fromkeys((401, 561), Kind.CREDENTIALS),
    402: Kind.MONEY,
    403: Kind.FORBIDDEN,
    **dict.fromkeys((404, 405, 421, 426, 431, 463, 501, 505), Kind.CONFIGURATION),
    **dict.fromkeys((407, 511), Kind.NETWORK_BLOCKED),
    **dict.fromkeys((408, 504, 522, 524), Kind.TIMEOUT_UPSTREAM),
    **dict.fromkeys((409, 424, 425, 460, 498, 499), Kind.TRANSIENT),
    413: Kind.WORD,
    429: Kind.THROTTLED_MINUTE,
    **dict.fromkeys((503, 521, 523, 526, 529, 530), Kind.OVERLOADED),
}
SURE_STATUSES = frozenset({402, 407, 413, 511})
"""Status codes that mean one thing, whatever else is said."""
