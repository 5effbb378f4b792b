"""Answers, latencies and errors from a seed: for dry runs, tests and benchmarks. Costs nothing.

Rule: the same word, attempt number and parameters always have the same fate.

Parameters: ``seed`` (0); ``latency_ms`` (0), a number or [low, high]; ``words`` (12), the length of
an answer, or of each text in it where there is a ``response_schema``; ``errors``, {outcome: share
of the calls}, e.g. {"transient": 0.1, "blocked": 0.01}; ``retry_after_ms``, what a throttled call
is told.
"""

import asyncio
import functools
import json
import random
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from crawler.answer_schema import SCHEMA, types
from crawler.protocol import Answer, Call, Provider, ProviderError
from crawler.providers.answers.check import wants_json
from crawler.states import Outcome

_FILLER = "a word that the script knows by heart and explains at no cost to anyone".split()
_WORD = re.compile(r"\S+\s*|\s+")
_ANY = {"type": "object", "properties": {"text": {"type": "string"}}}


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
        text = json.dumps(_value(call.params.get(SCHEMA, _ANY), length), ensure_ascii=False)
    else:
        text = f"{call.prefill}{call.word.capitalize()}: {_filler(length)}."
    return Answer(text, tokens_in=len(call.prompt.split()), tokens_out=length + 1)


def _value(schema: Any, length: int) -> object:
    """Return the first value that comes to mind of a schema."""
    schema = schema if isinstance(schema, dict) else {}
    match (types(schema) or ["string"])[0]:
        case "object":
            inner = schema.get("properties", {})
            return {name: _value(inner[name], length) for name in inner}
        case "array":
            items = schema.get("items", {})
            return [] if items is False else [_value(items, length)]
        case "integer" | "number":
            return length
        case "boolean":
            return True
        case "null":
            return None
        case _:
            return schema["enum"][0] if schema.get("enum") else _filler(length)


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
