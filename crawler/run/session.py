"""Puts a run together: loop, executor, providers, for the program and the Python API alike.

Rule: the only place that knows all of them.
"""

import asyncio
import os
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from crawler.clock import wall_ms
from crawler.errors import CrawlerError, Exit
from crawler.ledger.intake import Prompt, prompt_by_id
from crawler.ledger.status import Status
from crawler.ledger.work import work
from crawler.logs import Log
from crawler.policy import Policy
from crawler.protocol import ListingProvider, Provider, ProviderError
from crawler.providers import check_environment
from crawler.providers.openai.models import require_listed
from crawler.providers.openai.servers import exposed_to
from crawler.run.ending import Ending, RunOptions
from crawler.run.executor import LocalExecutor, OnText
from crawler.run.loop import Loop
from crawler.storage.store import Store

Listed = dict[str, list[dict[str, Any]]]
"""The models of the servers that were asked for them."""


async def crawl_store(
    store: Store,
    policy: Policy,
    options: RunOptions,
    log: Log,
    *,
    given: Mapping[tuple[str, str], Provider] | None = None,
    clock: Callable[[], int] | None = None,
    on_status: Callable[[Status], None] | None = None,
    on_start: Callable[[Loop], None] | None = None,
    on_text: OnText | None = None,
) -> Ending:
    """Make one run over an open database.

    Args:
        store: the database.
        policy: the settings.
        options: how far to go.
        log: where events go.
        given: providers that are there already, by (provider, model).
        clock: the time in ms; the file's own where none is given.
        on_status: told the state of the crawl once a second.
        on_start: told the loop when its providers are there; for who wants to stop it.
        on_text: told pieces of the answers as they come, where a provider can say them so early.

    Raises CrawlerError if a provider that has work to do can't be had; then no run was begun.

    """
    wake = asyncio.Event()
    # The executor reads the loop's clock, which is agreed on when the run begins.
    executor = LocalExecutor(lambda: loop.now_ms(), wake.set, given, on_text)  # noqa: PLW0108
    loop = Loop(
        store,
        executor,
        wake,
        clock=clock,
        policy=policy,
        options=options,
        log=log,
        on_status=on_status,
    )
    exposed = ""
    try:
        listed: Listed = {}
        for prompt in await store.run(_prompts_with_work, options):
            check_environment(prompt.provider, prompt.model, prompt.params)
            await _connect(executor, prompt.provider, prompt.model, listed)
            exposed = exposed or exposed_to(prompt.provider, os.environ)
        if exposed:
            log.warning("key_exposed", host=exposed)
        if on_start is not None:
            on_start(loop)
        return await loop.run()
    finally:
        await executor.close()


def _prompts_with_work(conn: sqlite3.Connection, options: RunOptions) -> list[Prompt]:
    return [prompt_by_id(conn, prompt.prompt_id) for prompt in work(conn, options.selection)]


async def connect_once(targets: Sequence[tuple[str, str]]) -> None:
    """Connect to each (provider, model) and part again. Raises CrawlerError if that fails."""
    executor = LocalExecutor(wall_ms, lambda: None)
    listed: Listed = {}
    try:
        for provider, model in targets:
            await _connect(executor, provider, model, listed)
    finally:
        await executor.close()


async def _connect(executor: LocalExecutor, provider: str, model: str, listed: Listed) -> None:
    """Connect, and ask a server once for its models. Raises CrawlerError."""
    try:
        connected = await executor.connect(provider, model)
    except ProviderError as error:
        raise CrawlerError(
            f"provider {provider!r} can't be reached",
            error.reason,
            "mend that and run again, or ask another: crawler run --provider NAME",
            Exit.UNREACHABLE,
        ) from error
    if isinstance(connected, ListingProvider):
        if provider not in listed:
            listed[provider] = await connected.models()
        require_listed(provider, model, listed[provider])
