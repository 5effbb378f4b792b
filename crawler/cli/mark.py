"""`crawler mark`: what a person thinks of answers."""

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from crawler.cli.options import changed_database_option
from crawler.cli.selecting import changed_in_parts, selector_options, typed
from crawler.cli.terminal import tell
from crawler.clock import wall_ms
from crawler.errors import quoted
from crawler.ledger.intake import Prompt
from crawler.ledger.reviews import Mark, review
from crawler.ledger.selectors import Selectors, texts
from crawler.storage.database import require_database, writing
from crawler.storage.ownership import login

NAMED = 5
"""Words that the way back names."""


@click.command(
    epilog="""\b
Examples:
  crawler mark bad maim --note "says nothing"
  crawler mark good @read.txt
  crawler retry --bad                   have those asked again"""
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

        def mark_part(conn: sqlite3.Connection, _: Prompt, ids: list[int]) -> int:
            return review(conn, ids, as_what, note, by, now_ms)

        done = changed_in_parts(db, writer, asked, mark_part)
        marked = sum(count for _, parts in done for count in parts)
        ids = [request_id for of_prompt, _ in done for request_id in of_prompt.ids]
        named = list(dict.fromkeys(writer.run(texts, ids[: NAMED + 1])))
    what = "unmarked" if as_what == "none" else f"marked {as_what}"
    told = f"{marked} {'answer' if marked == 1 else 'answers'} {what}"
    if marked and as_what != "none":
        back = " ".join(map(quoted, named)) if len(named) <= NAMED else "WORD…"
        told += f"; undo: crawler mark none {back}"
    tell(told)
