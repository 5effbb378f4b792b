"""Decides what becomes of a request, the moment it arrives.

Rule: outage, then prompt, then quota, then fate; all in one go, and counted and written down before
anything else happens. Whoever is let in has a number, by which his fate is drawn.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import grpc

from crawler.emulator.answers import Answer, answer, spoilt, word_of
from crawler.emulator.fate import Fate, fate
from crawler.emulator.quota import Quota, Room
from crawler.emulator.refusals import Status, ordered, over_quota
from crawler.emulator.settings import STATUSES, Settings
from crawler.emulator.tally import Line, Tally
from crawler.emulator.wire import Asked, tokens_out

SILENT = ("hang", "reset")
"""Faults of calls that are never answered."""

_UNAVAILABLE = Status(grpc.StatusCode.UNAVAILABLE, "The service is currently unavailable.")
_OUTAGES = {
    "unavailable": _UNAVAILABLE,
    "refused": _UNAVAILABLE,
    "resource_exhausted": ordered("resource_exhausted"),
}
_NO_PROMPT = Status(grpc.StatusCode.INVALID_ARGUMENT, "A prompt with some text in it is needed.")


class Call(NamedTuple):
    """A request that is decided: a status, or answers, or silence; and after how many ms."""

    asked: Asked
    word: str
    fate: Fate
    status: Status | None
    answers: Sequence[Answer]
    why: str | None = None
    wait_ms: int | None = None
    """Of a refusal: when to come again, where that is told."""

    @property
    def is_let_in(self) -> bool:
        """Whether it was neither a quota nor an outage that decided."""
        return self.why is None

    @property
    def code(self) -> str:
        """What the log and the counts call its end."""
        if self.fate.fault in SILENT:
            return self.fate.fault.upper()
        return self.status.code.name if self.status else "OK"


class Desk:
    """Decides about requests, one after the other."""

    def __init__(self, settings: Settings, tally: Tally, start_ms: int) -> None:
        self._settings = settings
        self._tally = tally
        self._start_ms = start_ms
        self._quota = Quota(settings, start_ms)
        self._let_in: Counter[str] = Counter()  # requests by word

    def is_out(self, now_ms: int) -> bool:
        """Tell whether there is an outage."""
        if self._settings.outage_s is None:
            return False
        begins_s, ends_s, *again_s = self._settings.outage_s
        passed_s = (now_ms - self._start_ms) / 1000
        return begins_s <= (passed_s % again_s[0] if again_s else passed_s) < ends_s

    def rooms(self, now_ms: int) -> Mapping[str, Room]:
        """Return what is left of each quota of a minute."""
        return self._quota.rooms(now_ms)

    def decide(self, method: str, asked: Asked, now_ms: int) -> Call:
        """Decide about a request; count it and write it down."""
        word = word_of(asked.questions[0].prompt) if asked.questions else ""
        nth = self._let_in[word] + 1
        call = self._decided(method, asked, word, nth, now_ms)
        if call.is_let_in:
            self._let_in[word] = nth
        line = Line(
            time=now_ms / 1000,
            method=method,
            word=word,
            nth=nth,
            code=call.code,
            fault=call.fate.fault,
            why=call.why,
            tokens_in=asked.tokens,
            tokens_out=sum(map(tokens_out, call.answers)),
            in_flight=self._tally.in_flight + call.is_let_in,
        )
        self._tally.decided(line)
        return call

    def _decided(self, method: str, asked: Asked, word: str, nth: int, now_ms: int) -> Call:
        at_once = Fate(None, 0)
        if self.is_out(now_ms):
            return Call(asked, word, at_once, _OUTAGES[self._settings.outage_kind], (), "outage")
        if not word:
            return Call(asked, word, at_once, _NO_PROMPT, ())
        drawn = fate(self._settings, word, nth)
        fault = drawn.fault
        status = ordered(fault) if fault in STATUSES else None
        answers = () if status or fault in SILENT else _answers(asked, word, fault)
        tokens = asked.tokens + sum(map(tokens_out, answers))
        refusal = self._quota.refusal(tokens, self._tally.in_flight, now_ms)
        if refusal is None:
            return Call(asked, word, drawn, status, answers)
        family = "online_prediction" if method == "Predict" else "generate_content"
        told = over_quota(refusal, family, asked.model, retry_info=self._settings.retry_info)
        wait_ms = refusal.wait_ms if self._settings.retry_info else None
        return Call(asked, word, at_once, told, (), refusal.why, wait_ms)


def _answers(asked: Asked, word: str, fault: str | None) -> tuple[Answer, ...]:
    """Return an answer to each question; the first is about the word of the request."""
    words = [word, *(word_of(question.prompt) for question in asked.questions[1:])]
    pairs = zip(asked.questions, words, strict=True)
    return tuple(
        spoilt(answer(question, about), fault, question.most_tokens) for question, about in pairs
    )
