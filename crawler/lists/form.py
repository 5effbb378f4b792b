"""Which form a list of text has: one word a line, a table with some separator, JSON.

Rule: pure. The first lines decide; the name is believed where they don't contradict it. What was
concluded against the name, or without one, is a note, so that nobody pays for a wrong guess.
"""

import csv
import json
from collections.abc import Sequence
from typing import NamedTuple

from crawler.errors import CrawlerError, Exit
from crawler.lists.tables import DEFAULT_COLUMN, find_column

LINES, TABLE, JSON, JSON_LINES = "a word a line", "a table", "JSON", "JSON lines"
SUFFIXES = (
    ".csv",
    ".json",
    ".jsonl",
    ".ndjson",
    ".parquet",
    ".tab",
    ".tsv",
    ".txt",
    ".xlsx",
    ".gz",
)
SAMPLE = 50
"""Lines that are looked at."""
FEWEST_ALIKE = 3
"""Lines that must be cut alike before text of no telling name is taken for a table."""

_SEPARATOR_OF = {".csv": ",", ".tsv": "\t", ".tab": "\t"}
_JSON_LINES = (".jsonl", ".ndjson")
_NAMES = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars", " ": "blanks"}
NO_SEPARATOR = "none"


class Reading(NamedTuple):
    """How a person wants a list to be read; None is: as it is found."""

    column: str | None = None
    delimiter: str | None = None
    """One character, ``tab``, or ``none`` for a word a line."""
    encoding: str | None = None
    header: bool = True


class Form(NamedTuple):
    """How a list is read."""

    kind: str
    separator: str = ""
    skipped: int = 0
    """Lines before the header: Excel's ``sep=;``."""
    note: str | None = None


def separator_of(delimiter: str) -> str:
    """Return the character that a person has named. Raises CrawlerError for what is none."""
    separator = {"tab": "\t", "\\t": "\t"}.get(delimiter.lower(), delimiter)
    if len(separator) != 1 or separator in '"\r\n\0':
        raise CrawlerError(
            f"--delimiter {delimiter!r} is no separator",
            "cells are separated by one character",
            "for example --delimiter ';' or --delimiter tab; --delimiter none reads a word a line",
            Exit.USAGE,
        )
    return separator


def form_of(suffix: str, lines: Sequence[str], how: Reading, *, is_whole: bool = True) -> Form:
    """Return the form of a list by its suffix (with its dot, in lower case) and its first lines.

    Fewer of them than `SAMPLE` are all there are, unless more may come (not ``is_whole``).
    """
    if how.delimiter == NO_SEPARATOR:
        return Form(LINES)
    lines = [line.replace("\ufeff", "") for line in lines if line.strip()][:SAMPLE]
    first = lines[0].strip() if lines else ""
    said = first.removeprefix("sep=") if len(first) == len("sep=;") else first
    skipped = int(said != first)
    if how.delimiter is not None or skipped:
        return Form(TABLE, separator_of(how.delimiter or said), skipped)
    if how.header:
        alone = len(lines) == 1 and (is_whole or not _is_an_item(first, how.column))
        if found := _json_form(suffix, first, alone=alone):
            return found
    return _text_form(suffix, lines, how)


def _is_an_item(line: str, column: str | None) -> bool:
    """Tell whether a line is an object that is a word, and not one that holds the list."""
    try:
        value = json.loads(line)
    except (RecursionError, ValueError):
        return False
    return isinstance(value, dict) and (
        find_column(list(value), column or DEFAULT_COLUMN) is not None
        or not any(isinstance(inner, list) for inner in value.values())
    )


def _json_form(suffix: str, first: str, *, alone: bool) -> Form | None:
    """Return the form of JSON, None of other text: by its first line, which may be all of it."""
    named, by_line = suffix == ".json" or suffix in _JSON_LINES, suffix in _JSON_LINES
    try:
        value = json.loads(first)
    except (RecursionError, ValueError):
        value = None
    if not named and not _begins_json(first, value):
        return None
    if alone:
        each = not isinstance(value, list | dict) or (by_line and isinstance(value, dict))
    else:
        each = value is not None or (by_line and not first.startswith(("[", "{")))
    kind = JSON_LINES if each else JSON
    return Form(kind, note=None if named and each == by_line else f"read as {kind}")


def _begins_json(first: str, value: object) -> bool:
    if value is None:
        return first in ("[", "{") or first.startswith(('["', "[{", '{"'))
    return isinstance(value, dict) or (isinstance(value, list) and isinstance(value[0], str | dict))


def _text_form(suffix: str, lines: Sequence[str], how: Reading) -> Form:
    own = _SEPARATOR_OF.get(suffix, "")
    wanted = how.column or DEFAULT_COLUMN
    first = lines[0].strip() if lines else ""
    if not own and suffix != ".txt" and len(lines) > 1 and first.casefold() == wanted.casefold():
        return Form(TABLE, ",", note="its first line names the column of the words")
    separator = max([own or ",", "\t", ";", ",", "|"], key=lambda one: _fit(lines, one, wanted))
    fit = _fit(lines, separator, wanted)
    if not own and how.column is None and how.header and not _is_table(suffix, separator, fit):
        return Form(LINES)
    name = _NAMES[separator]
    note = f"cells are separated by {name}" if own else f"read as a table, separated by {name}"
    return Form(TABLE, separator, note=None if separator == own else note)


class _Fit(NamedTuple):
    """How well a separator fits; the larger the better."""

    titled: bool
    """The first line has the wanted column, and others."""
    alike: bool
    """Each line has as many cells, and more than one."""
    width: int
    lines: int


def _fit(lines: Sequence[str], separator: str, wanted: str) -> _Fit:
    try:
        rows = list(csv.reader(lines, delimiter=separator, skipinitialspace=True))
    except csv.Error:
        rows = [[line] for line in lines]
    width = len(rows[0]) if rows else 0
    titles = [title.strip() for title in rows[0]] if rows else []
    alike = width > 1 and all(len(row) == width for row in rows)
    titled = width > 1 and find_column(titles, wanted) is not None
    return _Fit(titled, alike, width, len(rows))


def _is_table(suffix: str, separator: str, fit: _Fit) -> bool:
    """Tell whether text is a table, though it is not named as one; a .txt only if tabs cut it."""
    if not fit.alike:
        return False
    return fit.titled or (fit.lines >= FEWEST_ALIKE and (separator == "\t" or suffix != ".txt"))
