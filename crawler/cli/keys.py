"""What tells the rows of a list apart: its word, or the columns that `--key` names.

Rule: rows that are equal in all columns are one. Rows with one key that differ are refused, with
the ways out: nothing of a list is dropped without a word.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import click

from crawler.cli.terminal import printable
from crawler.errors import CrawlerError, Exit, quoted
from crawler.ledger.items import key_of
from crawler.lists.source import NOTHING_ADDED
from crawler.lists.tables import DEFAULT_COLUMN
from crawler.protocol import Row, Word

EXAMPLES = 3


class Key(NamedTuple):
    """The columns that tell the rows of a list apart."""

    columns: Sequence[str]
    """Empty: the word alone."""
    word: str
    """The column of the word."""
    is_asked: bool
    """It was named now; else lists without these columns have none."""
    is_stored: bool
    """It is that of the file."""


def read_key(named: str | None, stored: Sequence[str], column: str | None) -> Key:
    """Return the key that is named, or that of the file. Raises CrawlerError for another."""
    columns = [name.strip() for name in named.split(",")] if named else list(stored)
    if named and not all(columns):
        raise click.BadParameter(f"{named!r} is not COLUMN,COLUMN", param_hint="--key")
    if stored and set(columns) != set(stored):
        raise _other_key(stored, columns)
    return Key(stored or columns, column or DEFAULT_COLUMN, bool(named), bool(stored))


def keyed(words: Iterable[Word | None], key: Key) -> Iterator[Word | None]:
    """Yield the words with their keys; a list without the columns of the key has none.

    Raises CrawlerError where the key is named, and a list lacks a column of it.
    """
    needed = set(key.columns) - {key.word}
    is_found = not key.is_asked
    for word in words:
        if not key.columns or not isinstance(word, Row):
            yield word
            continue
        lacking = needed.difference(word.columns)
        if lacking and key.is_asked:
            raise _no_column(min(lacking), word)
        is_found = True
        if lacking:
            yield word
            continue
        parts = [
            word.text if name == key.word else word.fields.get(name, "") for name in key.columns
        ]
        yield Row(word.text, word.fields, word.columns, key_of(parts))
    if needed and not is_found:
        raise _no_column(min(needed), None)


def require_alike(words: Iterable[Word], key: Key) -> None:
    """Refuse words that stand in several rows that differ. Raises CrawlerError."""
    rows: dict[str, list[Word]] = defaultdict(list)
    for word in words:
        known = rows[word.identity]
        row = {key.word: word.text, **word.fields} if key.columns else word.fields
        if word.fields and row not in [other.fields for other in known]:
            known.append(Word(word.text, row))
    several = [known for known in rows.values() if len(known) > 1]
    if several:
        raise _differ(several, key)


def _differ(several: Sequence[Sequence[Word]], key: Key) -> CrawlerError:
    telling = _telling(several)
    shown = "; ".join(
        f"{printable(known[0].text)}: "
        + " and ".join(printable(word.fields.get(telling[0], "")) or "none" for word in known[:2])
        for known in several[:EXAMPLES]
    )
    one = len(several) == 1
    columns = ",".join([*(key.columns or [key.word]), *telling])
    sources: Sequence[str] = click.get_current_context().params.get("sources", ())
    command = " ".join(["crawler add", *map(quoted, sources), *_typed_options()])
    return CrawlerError(
        f"{len(several)} {'word stands' if one else 'words stand'} in several rows that differ;"
        " none was added",
        f"in {printable(telling[0])}, for example: {shown}",
        f"{command} --keep-first takes the first row of each"
        if key.is_stored
        else f"{command} --key {quoted(columns)} asks about each of them;"
        f" {command} --keep-first about the first row of each",
        Exit.USAGE,
    )


def _typed_options() -> list[str]:
    """Return the options of the command that say what is read, and for which prompt."""
    said = click.get_current_context().params
    named = [
        f"--{option} {quoted(said[name])}"
        for option, name in (
            ("prompt", "name"),
            ("column", "column"),
            ("delimiter", "delimiter"),
            ("encoding", "encoding"),
        )
        if said.get(name) is not None
    ]
    return named + [
        f"--{option.replace('_', '-')}" for option in ("no_header", "update") if said.get(option)
    ]


def _telling(several: Sequence[Sequence[Word]]) -> list[str]:
    """Return columns that tell the rows apart: one that does it alone, or all that differ."""
    names = dict.fromkeys(name for known in several for word in known for name in word.fields)
    differing = [
        name
        for name in names
        if any(len({word.fields.get(name, "") for word in known}) > 1 for known in several)
    ]
    for name in differing:
        if all(
            len({word.fields.get(name, "") for word in known}) == len(known) for known in several
        ):
            return [name]
    return differing


def _other_key(stored: Sequence[str], named: Sequence[str]) -> CrawlerError:
    shown = printable(",".join(stored))
    return CrawlerError(
        "this file has another key; nothing was added",
        f"its items are told apart by {shown}:"
        f" with {printable(','.join(named))} known ones are new",
        "leave --key out; for another key a database of its own: --db FILE",
        Exit.USAGE,
    )


def _no_column(name: str, row: Word | None) -> CrawlerError:
    return CrawlerError(
        f"there is no column {printable(name)!r}{NOTHING_ADDED}",
        f"the list of {printable(row.text)!r} has {', '.join(map(printable, row.columns))}"
        if row and row.columns
        else "the list has no other column than that of the word",
        "name the columns as the first row of the list has them: --key word,pos; in JSON each"
        " object needs all of them",
        Exit.USAGE,
    )
