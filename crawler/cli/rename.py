"""`crawler rename`: another text for a word."""

import sqlite3
from collections.abc import Sequence
from pathlib import Path

import click

from crawler.cli.options import changed_database_option
from crawler.cli.selecting import command_for, unknown_word
from crawler.cli.terminal import printable, tell
from crawler.clock import wall_ms
from crawler.errors import CrawlerError, Exit, quoted
from crawler.ledger.items import Corrected, identities
from crawler.ledger.items import rename as give_another_text
from crawler.lists.words import word_of
from crawler.storage.database import require_database, writing


@click.command(epilog="Example: crawler rename seperate separate")
@click.argument("texts", nargs=2, metavar="OLD NEW")
@changed_database_option
def rename(texts: Sequence[str], db: Path) -> None:
    """Mend a word's text: its fields and answers stay.

    An answer is stale after that if its prompt uses the word; what was sent stays readable.
    """
    old, new = (_text(text) for text in texts)
    require_database(db)
    with writing(db, wall_ms()) as writer:
        corrected = writer.run(_rename, old, new)
    stale = ""
    if corrected.stale:
        answers = "its answer is" if corrected.stale == 1 else f"{corrected.stale} answers are"
        stale = f"; {answers} stale (ask again: crawler retry {quoted(new)})"
    tell(
        f"{printable(old)} is {printable(new)} now{stale}."
        f" Undo: crawler rename {quoted(new)} {quoted(old)}"
    )


def _text(text: str) -> str:
    word = word_of(text, {})
    if word is None:
        raise click.UsageError("a word is no blank: crawler rename OLD NEW")
    return word.text


def _rename(conn: sqlite3.Connection, old: str, new: str) -> Corrected:
    known = identities(conn, old)
    if not known:
        raise unknown_word(conn, [old])
    if len(known) > 1:
        raise CrawlerError(
            f"{len(known)} words have the text {printable(old)!r}",
            "it is not clear which is meant",
            "mend the list, and add it: crawler add LIST",
            Exit.USAGE,
        )
    if new != old and identities(conn, new):
        raise CrawlerError(
            f"there is a word {printable(new)!r} already",
            "two words can't have one text; nothing was changed",
            f"{command_for('crawler add', [new])} && {command_for('crawler remove', [old])}",
            Exit.USAGE,
        )
    return give_another_text(conn, known[0], new, wall_ms())
