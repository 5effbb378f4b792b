"""Reads lists of words: plain text, CSV and TSV, JSON lines.

Rule: a list is read and checked to its end before a word of it is added, so a bad line changes
nothing.
"""

import csv
import json
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

from crawler.errors import CrawlerError, Exit, quoted
from crawler.protocol import Word

DEFAULT_COLUMN = "word"
NO_FIELDS: Mapping[str, str] = {}  # one for all: a list may have millions of words
MOST_QUOTED = 200
"""Characters of a list that an error quotes."""
SUFFIXES = (".csv", ".jsonl", ".tsv", ".txt")


def read_list(stream: TextIO, name: str, column: str | None) -> list[Word]:
    """Read a list of words.

    Args:
        stream: the open file.
        name: its name; its suffix tells the format, anything unknown is one word a line.
        column: the column or key that holds the word; else ``word``.

    Raises CrawlerError for a list that can't be read as what it is named.

    """
    try:
        match Path(name).suffix.lower():
            case ".csv":
                words = _read_table(csv.reader(stream, strict=True), name, column)
            case ".tsv":
                words = _read_table(csv.reader(stream, delimiter="\t", strict=True), name, column)
            case ".jsonl":
                words = _read_json_lines(stream, name, column)
            case _:
                words = (word_of(line, NO_FIELDS) for line in stream)
        return [word for word in words if word is not None]
    except UnicodeDecodeError as error:
        raise _unreadable(name, f"it is not UTF-8 text ({error.reason})") from error
    except csv.Error as error:
        raise _unreadable(name, str(error)) from error


def word_of(text: str, fields: Mapping[str, str]) -> Word | None:
    """Return the word that a text stands for; None for a blank."""
    text = as_added(text)
    if "\0" in text:
        raise CrawlerError(
            "a word has a NUL character in it",
            "SQLite's own tools would cut it off there",
            "is this a text file? remove the character",
            Exit.USAGE,
        )
    try:
        if fields or not text.isascii():
            "".join((text, *fields, *fields.values())).encode()
    except UnicodeEncodeError as error:
        raise CrawlerError(
            "a word or a field of it is no text",
            "it has a lone surrogate in it: half a character, or a byte that is not UTF-8",
            "is this UTF-8? convert the list, for example with iconv",
            Exit.USAGE,
        ) from error
    return Word(text, fields) if text else None


def as_added(text: str) -> str:
    """Return a text as it is stored: no byte order mark, no white space around it, and NFC."""
    if text.isascii():
        return text.strip()
    return unicodedata.normalize("NFC", text.replace("\ufeff", "").strip())


def _read_table(rows: Iterable[list[str]], name: str, column: str | None) -> Iterator[Word | None]:
    lines = iter(rows)
    header = [title.strip().strip("\ufeff") for title in next(lines, [])]
    wanted = column or DEFAULT_COLUMN
    if wanted not in header:
        columns = cut(", ".join(header)) or "none"
        first = quoted(cut(header[0])) if header else "NAME"
        raise CrawlerError(
            f"{name} has no column {cut(wanted)!r}",
            f"its first line names these columns: {columns}",
            f"name the column of the words: --column {first}",
            Exit.USAGE,
        )
    for number, row in enumerate(lines, 2):
        if len(row) > len(header):
            raise _unreadable(name, f"row {number} has more cells than the header")
        cells = dict(zip(header, row, strict=False))
        yield word_of(cells.pop(wanted, ""), {k: v.strip() for k, v in cells.items() if v.strip()})


def _read_json_lines(lines: TextIO, name: str, column: str | None) -> Iterator[Word | None]:
    wanted = column or DEFAULT_COLUMN
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            item = json.loads(line)
        except (RecursionError, ValueError) as error:
            raise _unreadable(name, f"line {number} is not JSON ({error})") from error
        if isinstance(item, str):
            yield word_of(item, NO_FIELDS)
        elif isinstance(item, dict) and isinstance(item.get(wanted), str):
            word = item.pop(wanted)
            yield word_of(word, {k: _as_text(v) for k, v in item.items() if v not in (None, "")})
        else:
            raise _unreadable(name, f"line {number} has no text {wanted!r}")


def cut(text: str) -> str:
    """Return as much of a text as an error quotes."""
    return text if len(text) <= MOST_QUOTED else f"{text[:MOST_QUOTED]}…"


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _unreadable(name: str, cause: str) -> CrawlerError:
    return CrawlerError(
        f"{name} can't be read, and nothing of it was added",
        cause,
        "mend the file, or name it .txt to read one word a line",
        Exit.USAGE,
    )
