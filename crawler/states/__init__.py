"""The states of a request, the outcomes of an attempt, and what may follow what.

Rule: which transitions are legal, and which outcomes are alike, is in this file alone. The ledger
asserts it, the triggers of the schema repeat it, and a test holds the three together.
"""

from enum import StrEnum


class RequestState(StrEnum):
    """Where one word × one prompt stands."""

    PENDING = "pending"
    LEASED = "leased"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Outcome(StrEnum):
    """How one attempt ended."""

    SUCCEEDED = "succeeded"
    TRANSIENT = "transient"  # 500, 503, 504, timeout, reset
    THROTTLED = "throttled"  # 429: the quota is used up; closes the gate of its limit
    UNAVAILABLE = "unavailable"  # connection refused, no route, no name: likewise
    REJECTED = "rejected"  # the text says that it is this word's fault: it will never do
    BLOCKED = "blocked"  # the model refused
    REFUSED = "refused"  # another 4xx: the prompt's fault, perhaps; the verdict waits for others
    NO_MONEY = "no_money"  # the account has none left
    NO_ANSWER = "no_answer"  # an answer came, and it is no good: half, empty, breaks its schema
    DENIED = "denied"  # 401, 403: credentials
    INTERRUPTED = "interrupted"  # we stopped before the answer came
    ABANDONED = "abandoned"  # its run died


TRANSITIONS: dict[RequestState, frozenset[RequestState]] = {
    RequestState.PENDING: frozenset({RequestState.LEASED, RequestState.CANCELLED}),
    RequestState.LEASED: frozenset(
        {
            RequestState.PENDING,
            RequestState.SUCCEEDED,
            RequestState.FAILED,
            RequestState.CANCELLED,
        }
    ),
    RequestState.SUCCEEDED: frozenset(),
    RequestState.FAILED: frozenset({RequestState.PENDING}),  # only when the user says retry
    RequestState.CANCELLED: frozenset({RequestState.PENDING}),  # likewise
}

# What a request pays with its own retry budget. Quota, outages and stops are not its fault;
# a death counts, so that an item that kills its process can't do so for ever.
COUNTS_AS_FAILURE = frozenset({Outcome.TRANSIENT, Outcome.ABANDONED})

# What the same request would only meet again. What was refused may come back: see ledger/doubt.py.
FINAL = frozenset({Outcome.REJECTED, Outcome.BLOCKED, Outcome.REFUSED})

# What shows that nothing is wrong with a prompt: a model that refuses a word has understood it.
SERVED = frozenset({Outcome.SUCCEEDED, Outcome.BLOCKED})

# What no server has worked on: it used no tokens.
UNPROCESSED = frozenset({Outcome.THROTTLED, Outcome.UNAVAILABLE})

# What shows that the server is there and serves this quota again.
OPENS_GATE = frozenset(
    {
        Outcome.SUCCEEDED,
        Outcome.TRANSIENT,
        Outcome.REJECTED,
        Outcome.BLOCKED,
        Outcome.REFUSED,
        Outcome.NO_ANSWER,
    }
)
