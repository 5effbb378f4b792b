"""What a refusal can mean: its kinds, whose fault each is, when to ask again, what is to be done.

Rule: data. `MEANINGS` is the whole table: a kind that is not in it does not exist, and nothing else
decides what follows from a kind.
"""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import NamedTuple


class Kind(StrEnum):
    """What was said in place of a good answer; kept as the reason code of the attempt."""

    WORD = "word"
    BLOCKED = "blocked"
    TOO_LARGE_FOR_QUOTA = "too_large_for_quota"
    TRANSIENT = "transient"
    TIMEOUT_UPSTREAM = "timeout_upstream"
    ACCEPTED_LATER = "accepted_later"
    HALF = "half"
    ODD = "odd"  # an end that is in no list of ours
    RECITATION = "recitation"  # likewise; the answer counts as blocked when it is asked no more
    NOT_AN_ANSWER = "not_an_answer"
    TRUNCATED = "truncated"
    THROTTLED_MINUTE = "throttled_minute"
    THROTTLED_TOKENS = "throttled_tokens"
    CONCURRENCY = "concurrency"
    OVERLOADED = "overloaded"  # no quota of ours: it teaches nothing about a rate
    THROTTLED_DAY = "throttled_day"
    MONEY = "money"
    CREDENTIALS = "credentials"
    FORBIDDEN = "forbidden"  # a 403 that says nothing, after others were served
    PERMISSION_MODEL = "permission_model"
    MODEL_MISSING = "model_missing"
    MODEL_LOADING = "model_loading"
    PARAMETER = "parameter"
    CONFIGURATION = "configuration"
    UNCLEAR = "unclear"  # another 4xx that says nothing we know
    NETWORK = "network"
    NETWORK_BLOCKED = "network_blocked"  # a proxy, a portal, a filter: a person has to act
    CERTIFICATE = "certificate"  # the server's is not trusted here
    SETUP = "setup"  # ours, before a byte was sent: an address, a parameter
    SETUP_KEY = "setup_key"  # likewise: a key, credentials


class Scope(StrEnum):
    """Whose fault it is, and so what else it concerns."""

    WORD = "word"
    MODEL = "model"
    ACCOUNT = "account"
    PROVIDER = "provider"
    NETWORK = "network"
    OURS = "ours"


class Again(StrEnum):
    """When the same request may succeed."""

    NEVER = "never"
    NOW = "now"
    LATER = "later"  # at the time that was told, or after a backoff
    PERSON = "after a person acted"


class Action(StrEnum):
    """What is done."""

    FAIL = "fail"  # this word fails; the others go on
    BLOCK = "block"  # likewise, with the model's reason
    AGAIN = "again"  # a bounded number of times
    ANSWER_AGAIN = "answer again"  # an answer came that is no good: its own, small budget
    WAIT = "wait"  # the limit waits; no word pays
    WAIT_THEN_STOP = "wait then stop"  # the prompt waits a minute first
    STOP = "stop"  # its words stay pending


class Meaning(NamedTuple):
    """What follows from a kind.

    Attributes:
        action: what is done.
        outcome: how the attempt ends, in the words of DESIGN's table of outcomes.
        scope: whose fault it is where the text says nothing else.
        again: when to ask again.
        ends_as: why a run ends that nothing else keeps going: see `run.ending.Reason`.
        remedy: what a person can do, as the end of a sentence.

    """

    action: Action
    outcome: str
    scope: Scope
    again: Again
    ends_as: str = ""
    remedy: str = ""


def _no_good(remedy: str) -> Meaning:
    return Meaning(Action.ANSWER_AGAIN, "no_answer", Scope.WORD, Again.NOW, remedy=remedy)


MEANINGS: Mapping[Kind, Meaning] = MappingProxyType(
    {
        Kind.WORD: Meaning(Action.FAIL, "rejected", Scope.WORD, Again.NEVER),
        Kind.BLOCKED: Meaning(Action.BLOCK, "blocked", Scope.WORD, Again.NEVER),
        Kind.TOO_LARGE_FOR_QUOTA: Meaning(
            Action.FAIL,
            "rejected",
            Scope.WORD,
            Again.NEVER,
            remedy="shorten it, lower max_output_tokens, or ask the provider for a higher limit",
        ),
        Kind.TRANSIENT: Meaning(Action.AGAIN, "transient", Scope.PROVIDER, Again.NOW),
        Kind.TIMEOUT_UPSTREAM: Meaning(Action.AGAIN, "transient", Scope.PROVIDER, Again.NOW),
        Kind.ACCEPTED_LATER: Meaning(Action.AGAIN, "transient", Scope.PROVIDER, Again.LATER),
        Kind.HALF: _no_good(
            "look for the fault at the server, which breaks its answers off, or use another model"
        ),
        Kind.ODD: _no_good(
            "look up the reason for the end at the provider, and mend the prompt or the model"
        ),
        Kind.RECITATION: _no_good("ask for words of the model's own, or use another model"),
        Kind.NOT_AN_ANSWER: _no_good(
            "look at the answers (crawler show WORD), and mend the prompt, its schema or the model"
        ),
        Kind.TRUNCATED: Meaning(
            Action.ANSWER_AGAIN,
            "no_answer",
            Scope.WORD,
            Again.PERSON,
            "configuration",
            remedy="raise max_output_tokens, lower the thinking, or shorten the prompt",
        ),
        Kind.THROTTLED_MINUTE: Meaning(Action.WAIT, "throttled", Scope.ACCOUNT, Again.LATER),
        Kind.THROTTLED_TOKENS: Meaning(Action.WAIT, "throttled", Scope.ACCOUNT, Again.LATER),
        Kind.CONCURRENCY: Meaning(Action.WAIT, "throttled", Scope.ACCOUNT, Again.LATER),
        Kind.OVERLOADED: Meaning(Action.WAIT, "throttled", Scope.PROVIDER, Again.LATER),
        Kind.THROTTLED_DAY: Meaning(
            Action.STOP,
            "throttled",
            Scope.ACCOUNT,
            Again.LATER,
            ends_as="quota_day",
            remedy="run again when the quota of the day, the week or the month is new",
        ),
        Kind.MONEY: Meaning(
            Action.STOP,
            "no_money",
            Scope.ACCOUNT,
            Again.PERSON,
            ends_as="no_money",
            remedy="pay, add credit or raise the spending limit at the provider, then run again",
        ),
        Kind.CREDENTIALS: Meaning(
            Action.STOP,
            "denied",
            Scope.ACCOUNT,
            Again.PERSON,
            "credentials",
            "set a key (NAME_API_KEY), or credentials, that are valid there, then run again",
        ),
        Kind.FORBIDDEN: Meaning(
            Action.STOP,
            "refused",
            Scope.ACCOUNT,
            Again.PERSON,
            "credentials",
            "ask who runs the server why it forbids the call",
        ),
        Kind.PERMISSION_MODEL: Meaning(
            Action.STOP,
            "refused",
            Scope.MODEL,
            Again.PERSON,
            "credentials",
            "ask for access to the model, or name another one",
        ),
        Kind.MODEL_MISSING: Meaning(
            Action.STOP,
            "refused",
            Scope.MODEL,
            Again.PERSON,
            "configuration",
            "name a model that the server has (crawler prompt models lists them,"
            " crawler run --model asks one)",
        ),
        Kind.MODEL_LOADING: Meaning(
            Action.WAIT_THEN_STOP,
            "unavailable",
            Scope.MODEL,
            Again.LATER,
            "loading",
            "run again when the server has loaded the model",
        ),
        Kind.PARAMETER: Meaning(
            Action.STOP,
            "refused",
            Scope.OURS,
            Again.PERSON,
            "configuration",
            "leave out or mend the parameter that the server names",
        ),
        Kind.CONFIGURATION: Meaning(
            Action.STOP,
            "refused",
            Scope.OURS,
            Again.PERSON,
            "configuration",
            "mend the address (NAME_BASE_URL, often without /v1), the endpoint or the project",
        ),
        Kind.UNCLEAR: Meaning(
            Action.STOP,
            "refused",
            Scope.OURS,
            Again.PERSON,
            "configuration",
            "read what the server says, and mend the model, a parameter or the address",
        ),
        Kind.SETUP: Meaning(
            Action.STOP,
            "denied",
            Scope.OURS,
            Again.PERSON,
            ends_as="configuration",
            remedy="mend that, then run again",
        ),
        Kind.SETUP_KEY: Meaning(
            Action.STOP,
            "denied",
            Scope.OURS,
            Again.PERSON,
            ends_as="credentials",
            remedy="mend that, then run again",
        ),
        Kind.NETWORK: Meaning(
            Action.WAIT,
            "unavailable",
            Scope.NETWORK,
            Again.LATER,
            ends_as="unreachable",
            remedy="start the server, or mend its address or the network",
        ),
        Kind.CERTIFICATE: Meaning(
            Action.STOP,
            "refused",
            Scope.NETWORK,
            Again.PERSON,
            "configuration",
            "name the authority that signed the certificate in SSL_CERT_FILE, or mend the address",
        ),
        Kind.NETWORK_BLOCKED: Meaning(
            Action.STOP,
            "refused",
            Scope.NETWORK,
            Again.PERSON,
            "unreachable",
            "log in to the network or its proxy, or use another network",
        ),
    }
)


class Refusal(NamedTuple):
    """What came in place of a good answer, and what it means.

    Attributes:
        kind: what was said.
        scope: whose fault it is.
        certain: the words say so; where false there is only a status to go by, or what was served
            before, and one refusal alone proves nothing.
        reason: one sentence: what the server said, and its code.
        status_code: the server's, of HTTP or what its gRPC code amounts to.
        retry_after_ms: the pause that the server asks for, in ms; None if it asks for none.
        remedy: what a person can do; "" where nobody has to do anything.

    """

    kind: Kind
    scope: Scope
    certain: bool
    reason: str
    status_code: int | None = None
    retry_after_ms: int | None = None
    remedy: str = ""

    @property
    def meaning(self) -> Meaning:
        """What follows from it."""
        return MEANINGS[self.kind]
