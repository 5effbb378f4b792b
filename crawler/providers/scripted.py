"""Answers, latencies and errors from a seed: for dry runs, tests and benchmarks. Costs nothing.

Rule: the same word, attempt number and parameters always have the same fate.

Its answers are checked as those of every other provider. Parameters: ``seed`` (0); ``latency_ms``
(0), a number or [low, high]; ``words`` (12), the length of an answer, or of each text in it where
there is a ``response_schema``; ``errors``, {outcome: share of the calls}, e.g. {"transient": 0.1,
"blocked": 0.01}; ``retry_after_ms``, what a throttled call is told. Those of other providers change
nothing, so that a prompt can be tried as it is.
"""

import asyncio
import difflib
import functools
import json
import random
import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from types import MappingProxyType
from typing import Any

from crawler.answer_schema import SCHEMA
from crawler.errors import CrawlerError, Exit
from crawler.protocol import Answer, Call, Provider, ProviderError
from crawler.providers.answers.check import CHECKS, accepted, wants_json
from crawler.providers.local_params import KIND_OF
from crawler.providers.scripted_values import value_of
from crawler.states import Outcome

_FILLER = "a word that the script knows by heart and explains at no cost to anyone".split()
_WORD = re.compile(r"\S+\s*|\s+")
OTHERS = frozenset(KIND_OF) | frozenset(
    "frequencyPenalty headers labels maxOutputTokens presencePenalty reasoning_effort verbosity"
    " request_type safety_settings service_tier stopSequences stop_sequences thinking topP".split()
)
"""Parameters of other providers, which change nothing here."""
_ANY = {"type": "object", "properties": {"text": {"type": "string"}}}


_FAILURES = [
    outcome.value
    for outcome in Outcome
    if outcome not in (Outcome.SUCCEEDED, Outcome.INTERRUPTED, Outcome.ABANDONED)
]


def check_params(model: str, params: Mapping[str, Any]) -> None:
    """Refuse parameters that the script does not know, or can't obey. Raises CrawlerError."""
    del model
    found = _fault(params)
    if found is not None:
        raise CrawlerError(
            "the parameters can't be obeyed by the script",
            found,
            "--param latency_ms=200 --param 'errors={\"transient\": 0.1}', for example; they are in"
            " docs/providers.md",
            Exit.USAGE,
        )


def _fault(params: Mapping[str, Any]) -> str | None:
    for name, value in params.items():
        if name not in _OWN:
            if name in OTHERS:
                continue
            close = difflib.get_close_matches(name, [*_OWN, *OTHERS], 1)
            return f"there is no parameter {name!r}{f'; is {close[0]} meant?' if close else ''}"
        fits, what = _OWN[name]
        if not fits(value):
            return f"{name} is {value!r}, and has to be {what}"
    return None


def _is_number(value: Any, most: float = 10**9) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= most


def _is_span(value: Any) -> bool:
    both = value if isinstance(value, list) and len(value) == len("ab") else [value]
    return all(map(_is_number, both)) and both == sorted(both)


def _is_share(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and all(name in _FAILURES and _is_number(share, 1) for name, share in value.items())
        and sum(value.values()) <= 1 + 1e-9
    )


_OWN: Mapping[str, tuple[Callable[[Any], bool], str]] = MappingProxyType(
    {
        "seed": (lambda _: True, "a value"),
        "latency_ms": (_is_span, "a number, or [low, high]"),
        "words": (lambda n: _is_number(n) and n >= 1 and n % 1 == 0, "a whole number"),
        "errors": (_is_share, f"shares of at most 1 in all, by outcome: {', '.join(_FAILURES)}"),
        "retry_after_ms": (_is_number, "a number"),
        "checks": (lambda names: set(names) <= set(CHECKS), f"a list of {' and '.join(CHECKS)}"),
    }
)


@asynccontextmanager
async def connect(model: str) -> AsyncIterator[Provider]:
    """Yield the script; any model's name will do."""
    del model
    yield Script()


class Script:
    """A provider whose answers are drawn from a seed."""

    async def generate(self, call: Call) -> Answer:
        """Wait, then answer or fail, as the seed says."""
        if "latency_ms" in call.params or "errors" in call.params:
            latency_s, failure = _fate(call)
            await asyncio.sleep(latency_s)
            if failure is not None:
                raise failure
        return _answer(call)

    async def stream(self, call: Call, on_text: Callable[[str], None]) -> Answer:
        """Answer word by word in the same time, or fail after it, as the seed says."""
        latency_s, failure = _fate(call)
        if failure is not None:
            await asyncio.sleep(latency_s)
            raise failure
        answer = _answer(call)
        pieces = _WORD.findall(answer.text.removeprefix(call.prefill))
        for piece in pieces:
            await asyncio.sleep(latency_s / len(pieces))
            on_text(piece)
        return answer


def _fate(call: Call) -> tuple[float, ProviderError | None]:
    """Return how long a call takes, in s, and the failure that it ends with, if it does."""
    chance = random.Random(f"{call.params.get('seed', 0)}/{call.word}/{call.number}")  # noqa: S311
    latency_s = _latency_s(call.params.get("latency_ms", 0), chance)
    return latency_s, _failure(call, chance.random())


def _answer(call: Call) -> Answer:
    length = int(call.params.get("words", 12))
    if wants_json(call.params):
        call = call._replace(prefill="")  # the value is whole
        value = value_of(call.params.get(SCHEMA, _ANY), length, _filler)
        text = json.dumps(value, ensure_ascii=False)
    else:
        text = f"{call.word.capitalize()}: {_filler(length)}."
    written = Answer(text, tokens_in=len(call.prompt.split()), tokens_out=length + 1)
    return accepted(call, written, None)


@functools.cache
def _filler(length: int) -> str:
    return " ".join((_FILLER * (length // len(_FILLER) + 1))[:length])


def _latency_s(latency_ms: float | list[float], chance: random.Random) -> float:
    if isinstance(latency_ms, list):
        return chance.uniform(*latency_ms) / 1000
    return latency_ms / 1000


def _failure(call: Call, drawn: float) -> ProviderError | None:
    for name, share in call.params.get("errors", {}).items():
        drawn -= share
        if drawn < 0:
            outcome = Outcome(name)
            pause_ms = call.params.get("retry_after_ms") if outcome is Outcome.THROTTLED else None
            return ProviderError(outcome, "as scripted", retry_after_ms=pause_ms)
    return None
