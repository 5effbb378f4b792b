"""What is printed for people to read.

Rule: what a model or a list has written is hostile here: nothing of it moves the cursor, changes a
title or turns the reading direction.
"""

import io
import json
import os
import re
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, TextIO

from crawler.errors import CrawlerError, quoted

_UNSEEN = (
    *(0xAD, *range(0x600, 0x606), 0x61C, 0x6DD, 0x70F, 0x890, 0x891, 0x8E2, 0x180E, 0x200B),
    *(0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2060, 0x2070), 0xFEFF),
    *(*range(0xFFF9, 0xFFFC), 0x110BD, 0x110CD, *range(0x13430, 0x13440)),
    *(*range(0x1BCA0, 0x1BCA4), *range(0x1D173, 0x1D17B), *range(0xE0000, 0xE0080)),
)
"""Format characters (category Cf), which hide text or turn it; without the two joiners, with which
some words are spelt."""
_FORMULA_SIGNS = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""What begins a formula in some spreadsheet; the last four are the wide forms of the first."""
_FORMULA = re.compile(
    rf"(?:\A|(?<=[;\t|])|(?<=[;\t|][\"']))(?=[{re.escape(''.join(_FORMULA_SIGNS))}])"
)
"""Where a cell begins that may be one, for a spreadsheet that takes another separator than ours."""
_ACTIVE = (*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029, *range(0xD800, 0xE000))
"""Control characters, line and paragraph separators, halves of characters."""
_IN_JSON = {
    code: f"\\u{code:04x}" if code < 2**16 else json.dumps(chr(code))[1:-1]
    for code in (*_ACTIVE, *_UNSEEN)
    if code != ord("\n")
}
_COMMAND = re.compile(
    r"\bcrawler(?= (?:--?[a-z]|(?:add|ask|backup|cancel|check|emulator|export|limit|pause|prompt"
    r"|resume|retry|run|seed|show|sql|status)\b))"
)
"""The program's name where a command follows."""
_IN_LINES = {code: chr(code).encode("unicode_escape").decode() for code in _IN_JSON}
_IN_LINES[ord("\t")] = " "
_IN_A_LINE = {**_IN_LINES, ord("\n"): "\\n"}


def printable(value: object) -> str:
    """Return a value as a line that can do nothing but be read: it can't begin another, either."""
    text = "" if value is None else str(value)
    return text if text.isprintable() else text.translate(_IN_A_LINE)


def printable_lines(value: object) -> str:
    """Return a value as text of one line or several, that can do nothing but be read."""
    text = "" if value is None else str(value)
    return text if text.isprintable() else text.translate(_IN_LINES)


def print_line(text: str = "") -> None:
    """Print a line of data."""
    sys.stdout.write(f"{text}\n")


def nowhere() -> TextIO:
    """Return a stream that nobody reads."""
    return os.fdopen(os.open(os.devnull, os.O_WRONLY), "w", encoding="utf-8")


def program() -> str:
    """Return how the program was started, as the shell takes it: scripts/crawl says it."""
    return quoted(os.environ.get("CRAWLER_PROGRAM") or "crawler")


def as_started(text: str) -> str:
    """Return a text of ours with its commands as they work for who has started the program."""
    return _COMMAND.sub(lambda _: program(), text)


def tell(text: str) -> None:
    """Say something to the person in a line, beside the data; nobody has to read it.

    On a terminal no word is broken, and no command, so that it can be copied.
    """
    line = as_started(printable(text))
    with suppress(OSError):
        sys.stderr.write(f"{_fitted(line, sys.stderr)}\n")


def print_told(text: str) -> None:
    """Print a line that a person has asked for and no program reads, as `tell` tells one."""
    print_line(_fitted(as_started(text), sys.stdout))


def _fitted(line: str, stream: TextIO) -> str:
    """Return a line, on a terminal broken between words; a command at its end stays whole."""
    width = shutil.get_terminal_size((100, 24)).columns
    if len(line) <= width or not stream.isatty():
        return line
    command = re.search(rf"(?<!\S){re.escape(program())} ", line)
    at = command.start() if command else len(line)
    if at <= len("  hint: "):
        return line
    told, command_line = _wrapped(line[:at].rstrip(), width), line[at:]
    last = told.rpartition("\n")[2]
    between = " " if len(last) + len(command_line) < width else "\n    "
    return f"{told}{between}{command_line}" if command_line else told


def _wrapped(line: str, width: int) -> str:
    import textwrap  # noqa: PLC0415 - for lines that are too long alone

    return textwrap.fill(
        line, width, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False
    )


def tell_error(error: CrawlerError) -> None:
    """Tell what went wrong, in the lines of the error."""
    for line in str(error).split("\n"):
        tell(line)


def as_json(value: object, indent: int | None = None) -> str:
    """Return a value as JSON that says the same, and can do nothing but be read."""
    text = json.dumps(value, ensure_ascii=False, indent=indent)
    return text if text.isprintable() else text.translate(_IN_JSON)


def print_json(value: object) -> None:
    """Print data as JSON."""
    print_line(as_json(value, indent=2))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print rows under their columns; where they don't fit in lines, one below the other."""
    columns = [printable(column) for column in columns]
    cells = [[printable_lines(value) for value in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
    fits = sum(widths) + 2 * len(widths) <= shutil.get_terminal_size((100, 24)).columns
    if fits and not any("\n" in cell for row in cells for cell in row):
        for row in (columns, *cells):
            pairs = zip(row, widths, strict=True)
            print_line("  ".join(cell.ljust(width) for cell, width in pairs).rstrip())
        return
    indent = max(map(len, columns)) + 2
    for row in cells:
        for column, cell in zip(columns, row, strict=True):
            # Line by line: indented as a whole, a text of many lines would fill the memory.
            lines = io.StringIO(cell.rstrip(), newline="\n")
            print_line(f"{column:<{indent}}{lines.readline()}".rstrip())
            for line in lines:
                print_line(f"{'':<{indent}}{line}".rstrip())
        print_line()


def moment(at_ms: int | None) -> str:
    """Return a time as ISO-8601 UTC text."""
    if at_ms is None:
        return ""
    text = datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


def span(duration_ms: float) -> str:
    """Return a time span in its two largest units."""
    seconds = round(duration_ms / 1000)
    if seconds < 60:  # noqa: PLR2004 - a minute
        return f"{seconds} s"
    minutes, seconds = divmod(seconds, 60)
    if minutes < 60:  # noqa: PLR2004 - an hour
        return f"{minutes} min {seconds} s"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:  # noqa: PLR2004 - a day
        return f"{hours} h {minutes} min"
    return f"{hours // 24} d {hours % 24} h"


def safe_cell(value: object) -> object:
    """Return a CSV cell that no spreadsheet takes for a formula, and no terminal for a command."""
    if not isinstance(value, str):
        return value
    if sys.stdout.isatty():
        value = printable_lines(value)
    value = _FORMULA.sub("'", value)
    # Python before 3.13 does not quote a cell with a CR in it, and what follows would be a new row.
    return value.replace("\r\n", "\n").replace("\r", "\n") if "\r" in value else value


def as_record(row: Any) -> Mapping[str, Any]:
    """Return a named tuple as the mapping that is printed as JSON."""
    record: Mapping[str, Any] = row._asdict()
    return record
