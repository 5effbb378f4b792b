"""The same words asked of another provider or model: `crawler run --provider P --model M`.

Rule: who is to be asked is looked for before anything is written, and what is written is told,
with the way back.
"""

import asyncio
import sqlite3
import sys
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from crawler.cli.builtin import STUDY_NOTES, WORD_LIST, study_notes
from crawler.cli.options import found
from crawler.cli.prompt_edit import tell_edited
from crawler.clock import wall_ms
from crawler.errors import quoted
from crawler.ledger.intake import (
    Prompt,
    PromptSpec,
    current_prompt,
    prompts,
    put_prompt,
    stale_answers,
    waiting_words,
)
from crawler.ledger.takeover import put_default_limit
from crawler.providers import check_environment, check_params, kind_of, model_for


class Change(NamedTuple):
    """A prompt that is to ask somebody else."""

    old: Prompt
    spec: PromptSpec


class Changed(NamedTuple):
    """A prompt that asks somebody else now."""

    old: Prompt
    new: Prompt
    waiting: int
    """Words that wait for it."""
    stale: int
    """Words that have an answer of another version."""


def chosen_prompts(conn: sqlite3.Connection, name: str | None) -> list[Prompt]:
    """Return the prompt that is named, or all that a program can serve. Raises CrawlerError."""
    if name is not None:
        return [found(current_prompt(conn, name), name)]
    return [
        row
        for row in prompts(conn)
        if row.current and not row.removed and row.provider != "function"
    ]


def changes(
    conn: sqlite3.Connection, name: str | None, provider: str | None, model: str | None
) -> list[Change]:
    """Return what the options would change. Raises CrawlerError for what makes no prompt.

    A list of words that is there is not written, and paid for, once more by another model, unless
    it is named.
    """
    if not (provider or model):
        return []
    asked = [prompt for prompt in chosen_prompts(conn, name) if name or prompt.name != WORD_LIST]
    return [Change(prompt, _spec(prompt, provider, model)) for prompt in asked]


def require_reachable(planned: Iterable[Change]) -> None:
    """Connect to those who are to be asked now and were not before. Raises CrawlerError.

    That finds a lack of credentials, a local model that does not start, and a model that a server
    does not list.
    """
    planned = list(planned)
    for _, spec in planned:
        check_environment(spec.provider, spec.model, spec.params)
    targets = {
        (spec.provider, spec.model)
        for old, spec in planned
        if (spec.provider, spec.model) != (old.provider, old.model)
    }
    if targets:
        from crawler.run.session import connect_once  # noqa: PLC0415 - what only a crawl needs

        asyncio.run(connect_once(sorted(targets)))


def put_change(conn: sqlite3.Connection, change: Change) -> Changed:
    """Make a prompt ask somebody else, about the same words."""
    old, spec = change
    limit_id = put_default_limit(conn, spec, kind_of(spec.provider).concurrency)
    new, _ = put_prompt(conn, spec, limit_id, wall_ms())
    return Changed(old, new, waiting_words(conn, new.id), stale_answers(conn, new.id))


def report_changed(done: Sequence[Changed]) -> None:
    """Tell which prompts have another version now; beside the display, or as lines of the log."""
    for old, new, waiting, stale in done:
        if old.id == new.id:
            continue
        if sys.stderr.isatty():
            tell_edited(old, new, waiting, stale)
        else:
            from crawler.logs import json_lines  # noqa: PLC0415 - what only a crawl needs

            json_lines().info(
                "prompt_changed",
                prompt=new.name,
                version=new.version,
                provider=new.provider,
                model=new.model,
                words=waiting,
                stale=stale,
                back=f"crawler prompt edit {quoted(old.name)} --to {old.version}",
            )


def _spec(old: Prompt, provider: str | None, model: str | None) -> PromptSpec:
    name = provider or old.provider
    wanted = model_for(name, model or (old.model if name == old.provider else None))
    if old.name == STUDY_NOTES and old.template == study_notes(old.provider, old.model).template:
        spec = study_notes(name, wanted)
    else:
        spec = PromptSpec(old.name, old.template, name, wanted, old.params)
    check_params(spec.provider, spec.model, spec.params)
    return spec
