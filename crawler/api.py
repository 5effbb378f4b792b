"""What `crawl` does: words in, one run, answers out, in the loop of whoever calls.

Rule: the same ledger functions as the program's, through one store.
"""

import inspect
import json
import logging
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from crawler.answer_schema import require_schema
from crawler.clock import wall_ms
from crawler.ledger import control
from crawler.ledger.clocks import file_ms
from crawler.ledger.intake import PromptSpec, add_words, put_prompt
from crawler.ledger.results import Result, result
from crawler.ledger.runs import Selection
from crawler.ledger.standing import ask_by
from crawler.ledger.takeover import put_default_limit
from crawler.lists.words import word_of
from crawler.logs import json_lines
from crawler.policy import Policy
from crawler.protocol import Word
from crawler.providers import check_params, kind_of
from crawler.providers.function import AsyncFunction, Function
from crawler.run.ending import RunOptions, raise_for
from crawler.run.session import crawl_store
from crawler.storage.store import open_store
from crawler.template import Template, flaw_of


class Setting(NamedTuple):
    """How fast and how patient; None keeps what the database has."""

    concurrency: int | None
    per_minute: int | None
    policy: Policy


async def crawl_words(
    words: Sequence[Word],
    spec: PromptSpec,
    setting: Setting,
    database: Path | None,
    function: AsyncFunction | None,
) -> list[Result]:
    """Ask about the words that have no answer; return a row for each word, in their order."""
    given = {(spec.provider, spec.model): Function(function)} if function else {}
    async with open_store(database) as store:
        prompt_id = await store.run(_put, words, spec, setting)
        options = RunOptions(selection=Selection(prompt_ids=(prompt_id,)))
        log = json_lines(logging.WARNING)
        raise_for(await crawl_store(store, setting.policy, options, log, given=given))
        return await store.run(_rows, prompt_id, words)


def read_word(word: str | Mapping[str, str]) -> Word:
    """Return a word from what a caller has given. Raises ValueError, CrawlerError."""
    if not isinstance(word, str | Mapping):
        raise TypeError(f"{word!r} is neither a text nor a mapping")
    fields = {} if isinstance(word, str) else {k: str(v) for k, v in word.items() if v is not None}
    found = word_of(word if isinstance(word, str) else fields.pop("word", ""), fields)
    if found is None:
        raise ValueError(f"{word!r} has no word in it")
    return found


def read_spec(
    name: str,
    template: str,
    provider: str | AsyncFunction,
    model: str | None,
    params: Mapping[str, Any],
) -> PromptSpec:
    """Return the identity of the answers that are asked for.

    Raises ValueError, TypeError for parameters that JSON can't say, CrawlerError.
    """
    if not name.strip():
        raise ValueError("the prompt needs a name")
    if not Template(template).all_names():
        raise ValueError("the prompt asks the same of every word: it has no {word} in it")
    if flaw := flaw_of(template):
        raise ValueError(f"{flaw.what}: {flaw.cause}; {flaw.hint}")
    template.encode()
    json.dumps(dict(params))
    require_schema(params)
    if callable(provider):
        return PromptSpec(name, template, "function", model or _name_of(provider), params)
    default_model = kind_of(provider).default_model
    model = model or default_model
    if not model:
        raise ValueError(f"provider {provider!r} needs a model")
    check_params(provider, model, params)
    return PromptSpec(name, template, provider, model, params)


def _name_of(function: AsyncFunction) -> str:
    """Return the name that tells a function from any other. Raises ValueError."""
    if not inspect.isfunction(function) or "<lambda>" in function.__qualname__:
        raise ValueError("the provider has no name of its own: give it one with model=")
    return f"{function.__module__}.{function.__qualname__}"


def _put(
    conn: sqlite3.Connection, words: Sequence[Word], spec: PromptSpec, setting: Setting
) -> int:
    """Put words and prompt on record; return the prompt's id."""
    now_ms = wall_ms()
    usual = None if spec.provider == "function" else kind_of(spec.provider).concurrency
    limit_id = put_default_limit(conn, spec, usual)
    prompt, _ = put_prompt(conn, spec, limit_id, now_ms)
    if setting.concurrency is not None:
        control.set_concurrency(conn, prompt.limit, setting.concurrency)
    if setting.per_minute is not None:
        control.set_per_minute(conn, prompt.limit, setting.per_minute, file_ms(conn))
    add_words(conn, prompt.id, words, now_ms, typed=True)
    ask_by(conn, prompt.id, [word.text for word in words])
    return prompt.id


def _rows(conn: sqlite3.Connection, prompt_id: int, words: Sequence[Word]) -> list[Result]:
    return [result(conn, prompt_id, word.text) for word in words]
