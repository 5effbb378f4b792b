"""A persistent, resumable crawler of generative APIs.

    results = await crawl(["abrogate", "laconic"], prompt="Define {word}.", provider=ask)

Rule: importing this imports nothing that only a running crawl needs.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from crawler.errors import CrawlerError
from crawler.ledger.results import Result
from crawler.policy import Policy
from crawler.protocol import Answer, Call, Provider, ProviderError
from crawler.states import Outcome

__all__ = [
    "Answer",
    "Call",
    "CrawlerError",
    "Outcome",
    "Policy",
    "Provider",
    "ProviderError",
    "Result",
    "crawl",
]


async def crawl(
    words: Iterable[str | Mapping[str, str]],
    *,
    prompt: str = "{word}",
    provider: str | Callable[[str], Awaitable[str]] = "local",
    model: str | None = None,
    params: Mapping[str, Any] | None = None,
    concurrency: int | None = None,
    per_minute: int | None = None,
    database: str | Path = "crawl.db",
    name: str = "crawl",
    policy: Policy | None = None,
) -> list[Result]:
    """Ask about every word that the database has no answer for, and return all answers.

    A second call with the same database asks nothing again, and a call after a crash goes on where
    the first was. An answer belongs to the word and to template, provider, model and parameters: a
    change of any of them asks anew.

    Args:
        words: texts, or mappings with a ``word`` and the fields that the template names.
        prompt: the template; ``{word}`` is the word, ``{name}`` a field of it.
        provider: ``local``, ``vertex``, ``openai``, ``scripted``, or an async function from prompt
            to answer.
        model: the model's name. For a function that has a name of its own it can be left out; a
            lambda, a method or a partial needs one, to tell its answers from those of another.
        params: parameters for the provider. With a ``response_schema``, a JSON Schema of an
            object, each answer is such an object, and its fields are columns of a view.
        concurrency: calls in flight at once; kept from the last time if it is not given.
        per_minute: calls that may start in any 60 s; likewise.
        database: the file; ``:memory:`` for one that is gone afterwards.
        name: what the prompt is called in the database.
        policy: time-outs, backoff and the number of failures that a word may have.

    Returns the results in the order of the words, one for each, repeated words included. All
    other words that are pending under the same prompt, whoever added them, are asked about as well.

    Raises CrawlerError where the database, the provider or a word is at fault, and ValueError for
    settings that make no sense. A word that failed raises nothing: see `Result`.

    """
    from crawler import api  # noqa: PLC0415 - asyncio and all that follows: see above

    if isinstance(words, str):
        raise TypeError("words is a text; give a list of words")
    if not all(1 <= n <= 10**9 for n in (concurrency, per_minute) if n is not None):
        raise ValueError("concurrency and per_minute must be at least 1, and at most 10**9")
    function = provider if callable(provider) else None
    return await api.crawl_words(
        [api.read_word(word) for word in words],
        api.read_spec(name, prompt, provider, model, params or {}),
        api.Setting(concurrency, per_minute, policy or Policy()),
        None if str(database) == ":memory:" else Path(database),
        function,
    )
