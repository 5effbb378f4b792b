"""A response of an OpenAI-compatible server: the answer in it, or what it says in place of one.

Rule: pure, but for the time. A status code of success is read as an answer, in whatever form; every
other one is a refusal, and so is an error in an answer's place.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from crawler.clock import wall_ms
from crawler.protocol import Answer, Call, ProviderError
from crawler.providers.answers.reply import answer_of, draft_of, error_of
from crawler.providers.answers.written import made
from crawler.providers.openai.answer import read_body
from crawler.providers.refusals.decision import broken_connection, refusal_of
from crawler.providers.refusals.said import Said
from crawler.providers.refusals.told import told_of
from crawler.states.kinds import Kind


class Arrived(NamedTuple):
    """A response that has come to its end.

    Attributes:
        status: its status code.
        headers: its headers.
        body: the whole body.
        service: who sent it: a host.
        is_open: it came in events, and nothing said that they were all.

    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    service: str = ""
    is_open: bool = False


def is_success(status: int) -> bool:
    """Tell whether a status code says that a body is to be read as an answer."""
    return 200 <= status < 300  # noqa: PLR2004 - success


def answer_in(call: Call, arrived: Arrived, secrets: Sequence[str]) -> Answer:
    """Return the answer in a response. Raises ProviderError if there is none, whatever it says."""
    said = _said(call, arrived, secrets)
    told = told_of(said)
    try:
        answer = _answer_in(call, arrived, said)
    except ProviderError as error:
        error.told = told
        raise
    return answer._replace(told=told) if told else answer


def _answer_in(call: Call, arrived: Arrived, said: Said) -> Answer:
    if not is_success(arrived.status):
        raise error_of(refusal_of(said))
    reading = read_body(said, prefill=_repeated(call), streamed=arrived.is_open)
    return answer_of(call, reading.written, reading.refusal)


def draft_in(call: Call, arrived: Arrived, secrets: Sequence[str]) -> Answer | None:
    """Return what there is of an answer that broke off; None if it had not begun."""
    written = read_body(_said(call, arrived, secrets), prefill=_repeated(call)).written
    return draft_of(call, written) if written.text or written.thoughts else None


def error_in_stream(error: Any, event: bytes, secrets: Sequence[str]) -> ProviderError:
    """Return what an event says that has an error in it: after a status of 200, all there is."""
    del error  # the whole event counts
    refusal = refusal_of(Said(200, {}, event, secrets=secrets, now_ms=wall_ms()))
    return error_of(refusal._replace(reason=f"the server broke off: {refusal.reason}"))


def broken_off() -> ProviderError:
    """Return the error of an answer whose events ended without its end."""
    return error_of(made(Kind.ODD, "the answer has no end"))


def no_form(kind: Kind = Kind.NOT_AN_ANSWER) -> ProviderError:
    """Return the error of an event that has not the form of one."""
    refusal = broken_connection("half", "the answer has not the form of one")
    return error_of(refusal._replace(kind=kind))


def _said(call: Call, arrived: Arrived, secrets: Sequence[str]) -> Said:
    return Said(
        arrived.status,
        arrived.headers,
        arrived.body,
        service=arrived.service,
        served_before=call.served_before,
        now_ms=wall_ms(),
        secrets=secrets,
        sent=call.prompt,
    )


def _repeated(call: Call) -> str:
    """Return what some servers repeat at the beginning of their answer."""
    return "" if call.params.get("endpoint") == "completion" else call.prefill
