"""Answers, latencies and errors from a seed: for dry runs, tests and benchmarks. Costs nothing.

Rule: the same word, attempt number and parameters always have the same fate.

Parameters: ``seed`` (0); ``latency_ms`` (0), a number or [low, high]; ``words`` (12), the length of
an answer; ``errors``, {outcome: share of the calls}, e.g. {"transient": 0.1, "blocked": 0.01};
``retry_after_ms``, what a throttled call is told.
"""

import asyncio
import functools
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from crawler.providers.protocol import Answer, Call, Provider, ProviderError
from crawler.states import Outcome

_FILLER = "a word that the script knows by heart and explains at no cost to anyone".split()


@asynccontextmanager
async def connect(model: str) -> AsyncIterator[Provider]:
    """Yield the script; any model's name will do."""
    del model
    yield Script()


class Script:
    """A provider whose answers are drawn from a seed."""

    async def generate(self, call: Call) -> Answer:
        """Wait, then answer or fail, as the seed says."""
        params = call.params
        if "latency_ms" in params or "errors" in params:
            chance = random.Random(f"{params.get('seed', 0)}/{call.word}/{call.number}")  # noqa: S311
            await asyncio.sleep(_latency_s(params.get("latency_ms", 0), chance))
            _fail_perhaps(call, chance.random())
        length = int(params.get("words", 12))
        text = f"{call.prefill}{call.word.capitalize()}: {_filler(length)}."
        return Answer(text, tokens_in=len(call.prompt.split()), tokens_out=length + 1)


@functools.cache
def _filler(length: int) -> str:
    return " ".join((_FILLER * (length // len(_FILLER) + 1))[:length])


def _latency_s(latency_ms: float | list[float], chance: random.Random) -> float:
    if isinstance(latency_ms, list):
        return chance.uniform(*latency_ms) / 1000
    return latency_ms / 1000


def _fail_perhaps(call: Call, fate: float) -> None:
    for name, share in call.params.get("errors", {}).items():
        fate -= share
        if fate < 0:
            outcome = Outcome(name)
            raise ProviderError(
                outcome,
                "as scripted",
                retry_after_ms=call.params.get("retry_after_ms")
                if outcome is Outcome.THROTTLED
                else None,
            )
