"""What a template needs of the lists, and the name that is meant where they lack it.

Rule: what no word can have is refused before words are asked about, or told where no list is there.
"""

import sqlite3
from collections.abc import Iterable
from difflib import get_close_matches

from crawler.cli.terminal import printable
from crawler.errors import CrawlerError, Exit
from crawler.ledger.columns import has_words, is_filled, listed_columns
from crawler.ledger.intake import Prompt
from crawler.template import Template

_WORD = "word"


def nearest(name: str, columns: Iterable[str]) -> str | None:
    """Return the name that a template can have meant: one of the columns, or that of the word."""
    folded = {column.casefold(): column for column in (*columns, _WORD)}
    close = get_close_matches(name.casefold(), folded, 1)
    return folded[close[0]] if close else None


def needed_columns(conn: sqlite3.Connection, old: Prompt | None, template: str) -> list[str]:
    """Return what is to be told of the columns that a template names.

    ``old`` is the version whose words it takes over. Raises CrawlerError where none of them has a
    column that it can't do without.
    """
    read = Template(template)
    columns = listed_columns(conn)
    asks = old is not None and has_words(conn, old.id)
    told = []
    for name in sorted(read.all_names() - {_WORD}):
        if old is not None and asks and is_filled(conn, old.id, name):
            continue
        near = nearest(name, columns)
        meant = f"is {{{printable(near)}}} meant? " if near not in (None, name) else ""
        if asks and name in read.required_names():
            raise _no_column(name, near, columns)
        if asks:
            told.append(f"{meant}no word has {{{name}}}: what is in [[ … ]] with it is left out")
        elif name in read.required_names() and name not in columns:
            told.append(f"{meant}its words need {{{name}}}: a list with the column {name}")
    return told


def _no_column(name: str, near: str | None, columns: Iterable[str]) -> CrawlerError:
    return CrawlerError(
        f"no word has {{{printable(name)}}}, and the template needs it; nothing was changed",
        f"the lists have word, {', '.join(map(printable, columns))}".removesuffix(", "),
        f"write {{{printable(near)}}}"
        if near not in (None, name)
        else "add the column first: crawler add LIST; or write [[ … ]] around it",
        Exit.USAGE,
    )
