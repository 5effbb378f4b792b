"""`crawler mark`: what a person thinks of answers."""

import sqlite3
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import click

from crawler.cli.options import WordsOrFiles, changed_database_option
from crawler.cli.selecting import (
    NAMED,
    Selected,
    changed_in_parts,
    command_for,
    selector_options,
    typed,
)
from crawler.cli.terminal import tell
from crawler.clock import wall_ms
from crawler.errors import count_of, quoted
from crawler.ledger.intake import Prompt
from crawler.ledger.reviews import Before, Mark, marks, review
from crawler.ledger.selectors import Selectors, names
from crawler.storage.database import require_database, writing
from crawler.storage.ownership import login


@click.command(
    cls=WordsOrFiles,
    epilog="""\b
Examples:
  crawler mark bad maim --note "says nothing"
  crawler mark good @read.txt
  crawler retry --bad                   have those asked again""",
)
@click.argument("as_what", metavar="good|bad|none", type=click.Choice(["good", "bad", "none"]))
@click.argument("words", nargs=-1, metavar="[WORD|@FILE|-]...")
@click.option("--note", help="Why.")
@selector_options
@changed_database_option
def mark(as_what: Mark, words: Sequence[str], note: str | None, db: Path, **said: Any) -> None:
    """Mark answers as good or bad; none takes a mark off.

    A mark belongs to the answer: a new one has none.
    """
    asked = typed(words, **said)
    if asked.selectors == Selectors():
        raise click.UsageError("say which words: WORD…, @FILE, --stale, --bad, --first 20")
    require_database(db)
    with writing(db, wall_ms()) as writer:
        by, now_ms = login(), wall_ms()

        def mark_part(conn: sqlite3.Connection, _: Prompt, ids: list[int]) -> list[Before]:
            before = marks(conn, ids)
            review(conn, ids, as_what, note, by, now_ms)
            return before

        done = changed_in_parts(db, writer, asked, mark_part)
        before = [(of, list(chain.from_iterable(parts))) for of, parts in done]
        marked = sum(len(answers) for _, answers in before)
        undo = writer.run(_undo, before, is_named=bool(asked.names)) if marked <= NAMED else []
    what = "unmarked" if as_what == "none" else f"marked {as_what}"
    told = f"{count_of(marked, 'answer')} {what}"
    tell("; undo: ".join([told, *filter(None, [" && ".join(undo)])]))


def _undo(
    conn: sqlite3.Connection, before: Sequence[tuple[Selected, list[Before]]], *, is_named: bool
) -> list[str]:
    """Return the commands that give answers the marks again that they had."""
    alike: dict[tuple[str, Mark, str | None], list[int]] = {}
    for of_prompt, answers in before:
        for answer in answers:
            key = (of_prompt.prompt.name, answer.mark, answer.note)
            alike.setdefault(key, []).append(answer.standing_id)
    commands = []
    for (prompt, mark_before, note), ids in alike.items():
        of_one = [f"--prompt {quoted(prompt)}"] if is_named or len(before) > 1 else []
        options = [*of_one, *([f"--note {quoted(note)}"] if note else [])]
        verb = f"crawler mark {mark_before}"
        commands.append(command_for(verb, names(conn, ids), " ".join(options)))
    return commands
