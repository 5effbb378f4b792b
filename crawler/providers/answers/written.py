"""What a model wrote, and what its end makes of it: the same for every provider.

Rule: pure. Only an end that is in a list of good ones makes a good answer.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from crawler.providers.answers.finish_reasons import End
from crawler.providers.answers.token_usage import UNKNOWN, Usage
from crawler.states.kinds import MEANINGS, Kind, Refusal

OK = 200
_KINDS = {
    End.TRUNCATED: Kind.TRUNCATED,
    End.BLOCKED: Kind.BLOCKED,
    End.HALF: Kind.HALF,
    End.ODD: Kind.ODD,
    End.ODD_BLOCKED: Kind.RECITATION,
}
_SAYS = {
    End.TRUNCATED: "the answer is cut off at max_output_tokens",
    End.BLOCKED: "the answer was blocked",
    End.HALF: "the answer is half of one",
    End.ODD: "the answer ended for a reason that is not known to be good",
    End.ODD_BLOCKED: "the answer was not given out",
}


class Written(NamedTuple):
    """What a model wrote, whatever it is worth.

    Attributes:
        text: the answer, without thoughts.
        thoughts: what the model thought before it.
        end: what its end makes of it.
        finish_reason: the end in the server's word.
        refused: what the model said when it refused.
        usage: what the call used.
        model_version: the model that answered, in the server's word.
        details: what else the server says of it, in its names.

    """

    text: str = ""
    thoughts: str = ""
    end: End = End.GOOD
    finish_reason: str | None = None
    refused: str = ""
    usage: Usage = UNKNOWN
    model_version: str | None = None
    details: Mapping[str, Any] | None = None


def refusal_of_end(written: Written) -> Refusal | None:
    """Return why what was written is no good answer, by its end; None if it is one."""
    reason = written.finish_reason or "no finish reason"
    if written.end is not End.GOOD:
        return made(_KINDS[written.end], f"{_SAYS[written.end]} ({reason})")
    if not written.text.strip():
        what = "only thoughts" if written.thoughts else "empty"
        return made(Kind.NOT_AN_ANSWER, f"the answer is {what} ({reason})")
    return None


def made(kind: Kind, reason: str) -> Refusal:
    """Return a refusal that an answer with a status code of success is."""
    return Refusal(kind, MEANINGS[kind].scope, certain=True, reason=reason, status_code=OK)
