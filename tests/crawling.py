"""One run over a database, with a provider of the test's own: no other file knows a run's parts.

What a run is told from outside: words and prompts on record, calls that end as a function says, a
clock, and how far it is to go. What it leaves is read from the rows.
"""

import inspect
from contextlib import asynccontextmanager

from crawler.ledger import intake
from crawler.ledger.budget import ANYTHING
from crawler.ledger.check import check
from crawler.ledger.limits import put_limit
from crawler.logs import silent
from crawler.policy import Policy
from crawler.protocol import Word
from crawler.run.ending import RunOptions
from crawler.run.session import crawl_store
from crawler.storage.store import open_store

QUICK = Policy(backoff_base_ms=1, backoff_cap_ms=1)


class Played:
    """A provider that ends calls as a function says, and keeps the calls that it was given."""

    def __init__(self, answer):
        self.calls = []
        self._answer = answer

    @property
    def words(self):
        return [call.word for call in self.calls]

    async def generate(self, call):
        self.calls.append(call)
        told = self._answer(call)
        if inspect.isawaitable(told):
            told = await told
        if isinstance(told, BaseException):
            raise told
        return told


def put(conn, words, *, name="p", template="About {word}", model="m", limit="quota", **facts):
    """Put a prompt on record, and a request of it for each word, a text or a (text, fields)."""
    limit_id = put_limit(conn, limit, facts.get("concurrency", 4))
    spec = intake.PromptSpec(name, template, "scripted", model, facts.get("params", {}))
    prompt, _ = intake.put_prompt(conn, spec, limit_id, 1)
    rows = [Word(*((word, {}) if isinstance(word, str) else word)) for word in words]
    intake.add_words(conn, prompt.id, rows, 1)


@asynccontextmanager
async def a_store(words=(), path=None, **facts):
    """Open a database with a prompt and words; in the end it keeps all its promises."""
    async with open_store(path) as store:
        await store.run(put, words, **facts)
        yield store
        findings = await store.run(check)
        assert [finding for finding in findings if finding.broken] == []


async def crawled(store, given, policy=QUICK, *, log=None, purse=None, **go):
    """Make a run; ``given`` answers for the model m, or is a mapping by model."""
    providers = given if isinstance(given, dict) else {"m": given}
    session = {name: go.pop(name) for name in ("clock", "on_start", "on_status") if name in go}
    if purse is not None:
        go["budget"] = ANYTHING._replace(**purse)
    return await crawl_store(
        store,
        policy,
        RunOptions(**go),
        log or silent(),
        given={("scripted", model): provider for model, provider in providers.items()},
        **session,
    )


async def rows(store, sql, *values):
    """Return the rows of a query."""
    return await store.run(lambda conn: conn.execute(sql, values).fetchall())
