"""`crawler prompt edit` and `remove`: what is asked from now on; what was answered stays.

Rule: only what changes is said, and each message tells the way back.
"""

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import click

from crawler.answer_schema import SCHEMA
from crawler.cli.columns import needed_columns
from crawler.cli.definition import read_params, read_template
from crawler.cli.options import changed_database_option, found, not_empty
from crawler.cli.selecting import PART
from crawler.cli.terminal import printable, tell
from crawler.clock import wall_ms
from crawler.errors import CrawlerError, Exit, count_of, quoted
from crawler.ledger.intake import (
    Prompt,
    PromptSpec,
    current_prompt,
    make_current,
    prompt_by_id,
    prompts,
    put_prompt,
    remove_prompt,
    stale_answers,
    waiting_words,
)
from crawler.ledger.limits import put_limit
from crawler.ledger.standing import answered_before, let_answers_stand
from crawler.ledger.takeover import put_default_limit
from crawler.providers import check_params, kind_of, model_for
from crawler.storage.database import reading, require_database, writing


class Edit(NamedTuple):
    """What is to change of a prompt; None: it stays."""

    template: str | None
    provider: str | None
    model: str | None
    params: Sequence[str]
    unset: Sequence[str]
    schema: str | None
    limit: str | None


class _Edited(NamedTuple):
    old: Prompt
    new: Prompt
    waiting: int
    stale: int
    notes: Sequence[str]


@click.command(
    epilog="""\b
Examples:
  crawler prompt edit define --model gpt-4o
  crawler prompt edit define --template @define2.txt --unset-param temperature
  crawler prompt edit define --to 1       back to an older version, and its answers"""
)
@click.argument("name", callback=not_empty)
@click.option("--template", help="The text, or @FILE. {word} is the word.")
@click.option("--provider", help="Another one; its model, too.")
@click.option("--model", help="The model's name.")
@click.option("--param", "params", multiple=True, metavar="NAME=VALUE", help="Set, or added.")
@click.option("--unset-param", "unset", multiple=True, metavar="NAME", help="Left out.")
@click.option("--schema", help="The JSON Schema of an answer, or @FILE.")
@click.option("--limit", callback=not_empty, help="The quota that it shares.")
@click.option("--to", "version", type=click.IntRange(1), help="Back to this version.")
@changed_database_option
def edit(name: str, version: int | None, db: Path, **said: Any) -> None:
    """Change what a prompt asks, or of whom: a new version of it.

    Words that wait are asked by the new version. What was answered stays, is exported and marked
    stale; crawler retry --stale has it asked again.
    """
    changes = Edit(**said)
    if version is not None and any(changes):
        raise click.UsageError("--to names a version as it is: change it with another edit")
    if version is None and not any(changes):
        raise click.UsageError("say what is to change, or --to VERSION")
    require_database(db)
    with writing(db, wall_ms()) as writer:
        if version is not None:
            prompt_id = writer.run(_version, name, version)
            with reading(db) as conn:
                replaced = answered_before(conn, prompt_id)
            for nth in range(0, len(replaced), PART):  # a running crawl waits for no more
                writer.run(let_answers_stand, prompt_id, replaced[nth : nth + PART])
            edited = writer.run(_go_back, name, version)
        else:
            edited = writer.run(_edit, name, changes)
    tell_edited(edited.old, edited.new, edited.waiting, edited.stale)
    for note in edited.notes:
        tell(note)


@click.command(epilog="Example: crawler prompt remove define")
@click.argument("name")
@changed_database_option
def remove(name: str, db: Path) -> None:
    """Ask a prompt no more, and show nothing of it; its answers stay in the file."""
    require_database(db)
    with writing(db, wall_ms()) as writer:
        gone = writer.run(_remove, name)
    tell(f"{printable(name)} removed; undo: crawler prompt edit {quoted(name)} --to {gone.version}")


def tell_edited(old: Prompt, new: Prompt, waiting: int, stale: int) -> None:
    """Tell what an edit has changed, what waits, what is stale, and the way back."""
    label = f"{printable(new.name)} version {new.version}"
    if old.id == new.id:
        tell(f"{label} is the current one")
        return
    tell(
        f"{label}: {_differences(old, new)};"
        f" undo: crawler prompt edit {quoted(new.name)} --to {old.version}"
    )
    kept = (
        f". {count_of(stale, 'answer')} of other versions {'stays' if stale == 1 else 'stay'} and"
        f" {'is' if stale == 1 else 'are'} stale (ask again: crawler retry --stale)"
        if stale
        else ""
    )
    tell(f"{count_of(waiting, 'word')} {'waits' if waiting == 1 else 'wait'} for it{kept}")


def put(
    conn: sqlite3.Connection, spec: PromptSpec, named: str | None, concurrency: int | None
) -> tuple[Prompt, bool, list[str]]:
    """Put a prompt, under the limit that is named; return it, whether it is new, and notes.

    Raises CrawlerError for a version that has another limit, and for a column that no word has.
    """
    notes = needed_columns(conn, current_prompt(conn, spec.name), spec.template)
    if named:
        limit_id = put_limit(conn, named, concurrency)
    else:
        limit_id = put_default_limit(conn, spec, concurrency)
    prompt, new = put_prompt(conn, spec, limit_id, wall_ms())
    if named and prompt.limit != named:
        raise CrawlerError(
            f"this version of {printable(spec.name)} is there already, with another limit",
            f"it shares {printable(prompt.limit)}, and a version never changes",
            f"crawler limit {quoted(prompt.limit)} --per-minute N, or change the prompt, too",
            Exit.USAGE,
        )
    return prompt, new, notes


def _edit(conn: sqlite3.Connection, name: str, changes: Edit) -> _Edited:
    old = found(current_prompt(conn, name), name)
    provider = changes.provider or old.provider
    model = changes.model or (old.model if provider == old.provider else None)
    params = {key: value for key, value in old.params.items() if key not in changes.unset}
    if lacking := [key for key in changes.unset if key not in old.params]:
        raise CrawlerError(
            f"there is no parameter {printable(lacking[0])!r} to leave out",
            f"{printable(name)} has {', '.join(map(printable, old.params)) or 'none'}",
            f"crawler prompt show {quoted(name)}",
            Exit.USAGE,
        )
    spec = PromptSpec(
        name,
        old.template if changes.template is None else read_template(changes.template),
        provider,
        model_for(provider, model),
        params | read_params(changes.params, changes.schema),
    )
    check_params(spec.provider, spec.model, spec.params)
    new, _, notes = put(conn, spec, changes.limit, kind_of(provider).concurrency)
    return _edited(conn, old, new, notes)


def _version(conn: sqlite3.Connection, name: str, version: int) -> int:
    """Return the id of a version of a prompt. Raises CrawlerError."""
    known = {row.version: row.id for row in prompts(conn) if row.name == name}
    if version not in known:
        found(current_prompt(conn, name), name)
        raise CrawlerError(
            f"{printable(name)} has no version {version}",
            f"its versions are {', '.join(map(str, known))}",
            "crawler prompt list",
            Exit.USAGE,
        )
    return known[version]


def _go_back(conn: sqlite3.Connection, name: str, version: int) -> _Edited:
    old, prompt_id = current_prompt(conn, name), _version(conn, name, version)
    assert old is not None
    make_current(conn, prompt_id)
    return _edited(conn, old, prompt_by_id(conn, prompt_id))


def _edited(
    conn: sqlite3.Connection, old: Prompt, new: Prompt, notes: Sequence[str] = ()
) -> _Edited:
    return _Edited(old, new, waiting_words(conn, new.id), stale_answers(conn, new.id), notes)


def _remove(conn: sqlite3.Connection, name: str) -> Prompt:
    prompt = found(current_prompt(conn, name), name)
    remove_prompt(conn, name, wall_ms())
    return prompt


def _differences(old: Prompt, new: Prompt) -> str:
    told = [
        f"{what} {printable(before)} → {printable(after)}"
        for what, before, after in (
            ("provider", old.provider, new.provider),
            ("model", old.model, new.model),
        )
        if before != after
    ]
    told += ["template"] if old.template != new.template else []
    changed = sorted(
        key
        for key in {*old.params, *new.params}
        if key != SCHEMA and old.params.get(key) != new.params.get(key)
    )
    told += [f"parameter {printable(key)}" for key in changed]
    told += ["schema"] if old.params.get(SCHEMA) != new.params.get(SCHEMA) else []
    return ", ".join(told) or "as before"
