"""Reads lists of words, whatever program has written them.

Rule: words come as they are read, so a list may be longer than the memory, or have no end. Nothing
is guessed silently: what was concluded from the list itself is noted.
"""

import csv
import gzip
import io
import shutil
import tempfile
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, dropwhile, islice
from pathlib import PurePath
from typing import Any, BinaryIO, NamedTuple, TypeVar

from crawler.lists.form import JSON, JSON_LINES, LINES, SAMPLE, Form, Reading, form_of
from crawler.lists.json_lists import words_of_json, words_of_json_lines
from crawler.lists.live import counted, is_live, live_lines
from crawler.lists.source import (
    HEAD,
    MOST_SAID,
    TEXT,
    WORKBOOK,
    decoded,
    kind_of,
    no_list,
    unpacked,
    wrong_encoding,
)
from crawler.lists.tables import Rows, columns_of, numbered, numbered_columns, words_of_rows
from crawler.lists.words import NO_FIELDS
from crawler.lists.workbooks import parquet_rows, workbook_rows
from crawler.protocol import Word

T = TypeVar("T")


class Listed(NamedTuple):
    """The words of a list in its order, and what was concluded from the list itself."""

    words: Sequence[Word]
    notes: Sequence[str]


SAMPLE_S = 4.0
"""For how long the first lines of a pipe are waited for."""

Note = Callable[[str], object]
"""Takes what was concluded from a list itself."""


def read_list(stream: BinaryIO, name: str, how: Reading) -> Listed:
    """Read a list of words to its end: see `words_of_list`."""
    notes: list[str] = []
    words = words_of_list(stream, name, how, notes.append)
    return Listed([word for word in words if word is not None], notes)


def words_of_list(stream: BinaryIO, name: str, how: Reading, note: Note) -> Iterator[Word | None]:
    """Yield the words of a list as they are read; None where time may have gone by without one.

    Args:
        stream: the open file, or a pipe.
        name: its name; its suffix is believed where the first lines don't contradict it.
        how: what a person has said of it.
        note: is told what was concluded.

    Raises CrawlerError for what is no list, or can't be read as one.

    """

    def brief(said: str) -> None:
        note(said[:MOST_SAID])

    try:
        reader = unpacked(stream, name)
        kind = kind_of(reader.peek(HEAD), name, how.encoding)
        if kind == TEXT:
            with decoded(reader, how.encoding) as text:
                is_waited_for = reader is stream and is_live(stream)
                lines = live_lines(reader, text.encoding) if is_waited_for else text
                yield from _words_of_text(lines, name, how, brief)
        else:
            yield from _words_of_binary(reader, kind, name, how, brief)
    except (LookupError, UnicodeError) as error:
        raise wrong_encoding(name, error, how.encoding) from error
    except csv.Error as error:
        raise no_list(
            name, str(error), "mend the file, or name it .txt to read one word a line"
        ) from error
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise no_list(
            name, f"what gzip packed is cut off or damaged: {error}", "copy it again"
        ) from error


def _words_of_text(
    stream: Iterable[str], name: str, how: Reading, note: Note
) -> Iterator[Word | None]:
    until = time.monotonic() + SAMPLE_S
    items = iter(stream)
    first, rest = _sampled(items, lambda line: not line, until)
    is_late = first[-1:] == [""]
    is_whole = rest is items and not is_late
    form = form_of(_suffix(name), first, how, is_whole=is_whole)
    lines = chain(filter(None, first), [""] * is_late, rest)  # they are given at once
    if form.note:
        note(form.note)
    if form.kind == LINES:
        yield from _words_of_lines(lines, name)
    elif form.kind == JSON_LINES:
        yield from words_of_json_lines(lines, name, how.column)
    elif form.kind == JSON:
        words, notes = words_of_json(lines, name, how.column)
        _tell_all(notes, note)
        yield from words
    else:
        yield from _words_of_table(_cut(lines, form), name, how, note, until)


def _sampled(
    items: Iterator[T], is_tick: Callable[[T], bool], until: float
) -> tuple[list[T], Iterator[T]]:
    """Return the first items, and the others; fewer where time is up, or it is interrupted."""
    first: list[T] = []
    try:
        for item in items:
            first.append(item)
            if len(first) == SAMPLE or (is_tick(item) and time.monotonic() >= until):
                break
    except KeyboardInterrupt as error:  # what was read is given first
        return first, _raised(error)
    return first, items


def _raised(error: KeyboardInterrupt) -> Iterator[Any]:
    yield from ()
    raise error


def _tell_all(notes: Sequence[str], note: Note) -> None:
    for one in notes:
        note(one)


def _cut(lines: Iterator[str], form: Form) -> Rows:
    """Yield the rows of a table; an empty one where time has gone by, with the number before."""
    last, number = "", form.skipped

    def wanted() -> Iterator[str]:
        nonlocal last
        real = dropwhile(lambda line: not line, islice(lines, form.skipped, None))
        for last in real:  # noqa: UP028 - it is kept
            yield last

    for row in csv.reader(wanted(), delimiter=form.separator, skipinitialspace=True, strict=True):
        number += bool(last)
        yield number, row


def _words_of_binary(
    reader: io.BufferedReader, kind: str, name: str, how: Reading, note: Note
) -> Iterator[Word | None]:
    with tempfile.TemporaryFile() as whole:
        shutil.copyfileobj(reader, whole)  # what reads it jumps, which a pipe can't
        notes: Sequence[str] = []
        if kind == WORKBOOK:
            rows, notes = workbook_rows(whole, name)
        else:
            rows = parquet_rows(whole, name)
        _tell_all(notes, note)
        yield from _words_of_table(rows, name, how, note)


def _words_of_lines(lines: Iterator[str], name: str) -> Iterator[Word | None]:
    for number, line in counted(lines):
        yield numbered(number, name, line, NO_FIELDS)


def _words_of_table(
    rows: Rows, name: str, how: Reading, note: Note, until: float = float("inf")
) -> Iterator[Word | None]:
    first, rows = _sampled(rows, lambda row: not row[1], until)
    header = first[0][1] if first else []
    sample = [row for _, row in first[1:]]
    if how.header:
        columns = columns_of(header, how.column, name, sample)
        rest = chain(first[1:], rows)
    else:
        columns = numbered_columns([row for _, row in first], how.column, name)
        rest = chain(first, rows)
    _tell_all(columns.notes, note)
    yield from words_of_rows(rest, columns, name, note)


def _suffix(name: str) -> str:
    path = PurePath(name.lower())
    return PurePath(path.stem).suffix if path.suffix == ".gz" else path.suffix
