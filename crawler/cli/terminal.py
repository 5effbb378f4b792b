"""What is printed for people to read.

Rule: what a model or a list has written is hostile here: nothing of it moves the cursor, changes a
title or turns the reading direction.
"""

import json
import shlex
import shutil
import sys
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

_BIDI = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def printable(value: object) -> str:
    """Return a value as text that can do nothing but be read."""
    text = "" if value is None else str(value)
    if text.isascii() and text.isprintable():
        return text
    return "".join(_escaped(char) for char in text)


def quoted(text: str) -> str:
    """Return a text as the shell takes it for one word of a command, and nobody for anything else.

    In double quotes where they do, as people write them.
    """
    text = printable(text)
    if shlex.quote(text) == text:
        return text
    return shlex.quote(text) if set(text) & set('"$`\\!') else f'"{text}"'


def print_line(text: str = "") -> None:
    """Print a line of data."""
    sys.stdout.write(f"{text}\n")


def tell(text: str) -> None:
    """Say something to the person, beside the data."""
    sys.stderr.write(f"{printable(text)}\n")


def as_json(value: object, indent: int | None = None) -> str:
    """Return a value as JSON that says the same, and can do nothing but be read."""
    text = json.dumps(value, ensure_ascii=False, indent=indent)
    if text.isprintable():
        return text
    return "".join(f"\\u{ord(char):04x}" if _is_active(char) else char for char in text)


def print_json(value: object) -> None:
    """Print data as JSON."""
    print_line(as_json(value, indent=2))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print rows under their columns; where they don't fit in lines, one below the other."""
    columns = [printable(column) for column in columns]
    cells = [[printable(value) for value in row] for row in rows]
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
            value = cell.replace("\n", "\n" + " " * indent)
            print_line(f"{column:<{indent}}{value}".rstrip())
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
    if isinstance(value, str) and sys.stdout.isatty():
        value = printable(value)
    if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")):
        return f"'{value}"
    return value


def as_record(row: Any) -> Mapping[str, Any]:
    """Return a named tuple as the mapping that is printed as JSON."""
    record: Mapping[str, Any] = row._asdict()
    return record


def _is_active(char: str) -> bool:
    """Tell whether a terminal might do something else with a character than show it."""
    return char != "\n" and (unicodedata.category(char) in ("Cc", "Cs") or char in _BIDI)


def _escaped(char: str) -> str:
    if char == "\t":
        return " "
    if not _is_active(char):
        return char
    return char.encode("unicode_escape", "surrogatepass").decode()
