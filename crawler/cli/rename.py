"""`crawler rename`: another text for a word."""

import sqlite3
from collections.abc import Sequence
from pathlib import Path

import click

from crawler.cli.options import changed_database_option
from crawler.cli.selecting import command_for, identity_meant, unknown_word
from crawler.cli.terminal import printable, tell
from crawler.clock import wall_ms
from crawler.errors import CrawlerError, Exit, quoted
from crawler.ledger.items import Renamed, identities, identity_as, shown
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
        identity, renamed = writer.run(_rename, old, new)
    before, after = shown(identity), shown(renamed.identity)
    stale = ""
    if renamed.stale:
        answers = "its answer is" if renamed.stale == 1 else f"{renamed.stale} answers are"
        stale = f"; {answers} stale (ask again: crawler retry {quoted(after)})"
    tell(
        f"{printable(before)} is {printable(new if after == before else after)} now{stale}."
        f" Undo: crawler rename {quoted(after)} {quoted(renamed.text)}"
    )


def _text(text: str) -> str:
    word = word_of(text, {})
    if word is None:
        raise click.UsageError("a word is no blank: crawler rename OLD NEW")
    return word.text


def _rename(conn: sqlite3.Connection, old: str, new: str) -> tuple[str, Renamed]:
    identity = identity_meant(conn, old, "crawler rename", new)
    if identity is None:
        raise unknown_word(conn, [old])
    after = identity_as(conn, identity, new)
    # A text that has no key is its own: others with this text would be meant with it.
    known = identities(conn, new) if after == new else identities(conn, after)
    if after != identity and known:
        raise CrawlerError(
            f"there is a word {printable(shown(after))!r} already",
            "two words can't have one text, or one key; nothing was changed",
            f"{command_for('crawler add', [new])} && {command_for('crawler remove', [old])}",
            Exit.USAGE,
        )
    return identity, give_another_text(conn, identity, new, wall_ms())
