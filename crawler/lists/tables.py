"""Reads tables: which column holds the words, and what the others say of them.

Rule: a row is one item. What doesn't fit its header is refused by its number; only cells that are
empty are left out without a word.
"""

import csv
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, NoReturn

from crawler.errors import CrawlerError, Exit, quoted
from crawler.lists.source import no_list
from crawler.lists.words import word_of
from crawler.protocol import Row, Word

DEFAULT_COLUMN = "word"
LONGEST_CELL = 1_000_000
"""Characters of a cell; a longer one is a quotation mark that nobody closed."""
LONGEST_TITLE = 60
FIRST = 3
"""Rows of which an error shows the cells."""
SHOWN = 200
"""Characters of a list that an error repeats."""

csv.field_size_limit(LONGEST_CELL)

Rows = Iterator[tuple[int, Sequence[str]]]
"""The rows of a table with their numbers, its header first."""


class Columns(NamedTuple):
    """Which cells of a row are what."""

    titles: Sequence[str]
    word: int
    notes: Sequence[str]


def words_of_rows(
    rows: Rows, columns: Columns, name: str, note: Callable[[str], object]
) -> Iterator[Word | None]:
    """Yield the words of numbered rows, None for one without.

    Note in the end how many rows have cells and no word.

    Raises CrawlerError for a row that doesn't fit.
    """
    wordless, example = 0, 0
    titles, at = columns.titles, columns.word
    others = [title for n, title in enumerate(titles) if n != at and title]
    for number, row in rows:
        if any(cell.strip() for cell in row[len(titles) :]):
            raise no_list(
                name,
                f"row {number} has more cells than the header",
                "is a cell with the separator in it not quoted? or name the separator: --delimiter",
            )
        text = row[at] if at < len(row) else ""
        pairs = zip(titles, row, strict=False)
        cells = {
            title: cell
            for n, (title, value) in enumerate(pairs)
            if n != at and title and (cell := value.strip())
        }
        word = numbered(number, name, text, cells)
        yield word and Row(word.text, word.fields, others)
        if word is None and cells:
            wordless, example = wordless + 1, example or number
    if wordless:
        lack = "row has" if wordless == 1 else "rows have"
        note(f"{wordless} {lack} no word, for example row {example}: left out")


def numbered(number: int, name: str, text: str, fields: Mapping[str, str]) -> Word | None:
    """Return the word of a row, None for a blank; its error tells where it stands."""
    try:
        return word_of(text, fields)
    except CrawlerError as error:
        cause = f"row {number}: {error.what}: {error.cause}"
        raise no_list(name, cause, error.hint) from error


def columns_of(
    header: Sequence[str], wanted: str | None, name: str, sample: Sequence[Sequence[str]]
) -> Columns:
    """Return which column is what by the first row of a table.

    Args:
        header: its cells.
        wanted: the column of the words; None is the one called ``word``, or the only one there is.
        name: of the list, for messages.
        sample: some of the rows that follow.

    Raises CrawlerError where no column, or more than one, can be meant.

    """
    titles = [title.replace("\ufeff", "").strip() for title in header]
    at = find_column(titles, wanted or DEFAULT_COLUMN)
    if at is None and wanted is None and len(titles) == 1 and _is_title(titles[0]):
        note = (
            f"its only column, {titles[0]!r}, holds the words (--no-header if that is one itself)"
        )
        return Columns(titles, 0, [note])
    if at is None:
        _refuse(titles, wanted or DEFAULT_COLUMN, name, sample)
    _refuse_repeated(titles, name)
    nameless = [n for n, title in enumerate(titles, 1) if not title]
    filled = [n for n in nameless if any(len(row) >= n and row[n - 1].strip() for row in sample)]
    notes = [f"column {n} has no name and is left out" for n in filled]
    if titles[at] != (wanted or DEFAULT_COLUMN):
        notes.append(f"column {titles[at]!r} holds the words")
    return Columns(titles, at, notes)


def numbered_columns(rows: Sequence[Sequence[str]], wanted: str | None, name: str) -> Columns:
    """Return the columns of a table that has no header: ``column_1`` and so on.

    Raises CrawlerError where there is no such column, or the first holds numbers and none is named.
    """
    width = max(map(len, rows), default=0)
    likely = _likely_column(rows)
    number = int(wanted) if wanted is not None and wanted.isdecimal() else 0 if wanted else 1
    if not 1 <= number <= max(width, 1):
        raise CrawlerError(
            f"{name} has no column {wanted!r}",
            f"without a header, columns are numbers: it has {width}",
            f"name the column of the words by its number: --no-header --column {likely}",
            Exit.USAGE,
        )
    if wanted is None and likely != 1:
        raise no_list(name, f"the first column holds numbers: {_shown(rows)}", _way(likely))
    return Columns([f"column_{n}" for n in range(1, width + 1)], number - 1, [])


def _likely_column(rows: Sequence[Sequence[str]]) -> int:
    """Return the number of the first column most of whose cells are words, and not numbers."""
    for n in range(max(map(len, rows), default=0)):
        cells = [row[n].strip() for row in rows if len(row) > n]
        if sum(bool(cell) and not _is_number(cell) for cell in cells) * 2 > len(rows):
            return n + 1
    return 1


def _shown(rows: Sequence[Sequence[str]]) -> str:
    """Return the columns with their first cells, in words."""
    width = max(map(len, rows), default=0)
    columns = [[row[n].strip() for row in rows[:FIRST] if len(row) > n] for n in range(width)]
    told = [f"column {n}: {', '.join(cells)}" for n, cells in enumerate(columns, 1)]
    return "; ".join(told)[:SHOWN]


def _way(likely: int) -> str:
    """Return how a table without a header is read."""
    return (
        f"--no-header --column {likely} has the words in column {likely};"
        " --delimiter none takes whole lines for words"
    )


def find_column(titles: Sequence[str], wanted: str) -> int | None:
    """Return where a column stands: by its exact name, else whatever its case and blanks."""
    if wanted in titles:
        return titles.index(wanted)
    folded = wanted.strip().casefold()
    return next((n for n, title in enumerate(titles) if title.casefold() == folded), None)


def _refuse(
    titles: Sequence[str], wanted: str, name: str, sample: Sequence[Sequence[str]]
) -> NoReturn:
    shown = ", ".join(titles)[:SHOWN] or "none"
    if _looks_like_data(titles, sample):
        rows = [titles, *sample]
        raise CrawlerError(
            f"{name} has no header, and nothing of it was added",
            f"its first line looks like data: {_shown(rows)}",
            f"{_way(_likely_column(rows))}; if the first line is a header: --column NAME",
            Exit.USAGE,
        )
    first = next(filter(None, titles), "NAME")
    likely = _likely_column([titles, *sample])
    raise CrawlerError(
        f"{name} has no column {wanted!r}",
        f"its first line names these columns: {shown}",
        f"name the column of the words: --column {_quoted(first)}"
        + (f"; without a header: --no-header --column {likely}" if titles else ""),
        Exit.USAGE,
    )


def _looks_like_data(titles: Sequence[str], sample: Iterable[Sequence[str]]) -> bool:
    """Tell whether a first row is likely to be one of the table, and not its header."""
    below = {(n, cell.strip()) for row in sample for n, cell in enumerate(row)}
    return any(
        _is_number(title) or len(title) > LONGEST_TITLE or (n, title) in below
        for n, title in enumerate(titles)
        if title
    )


def _is_title(text: str) -> bool:
    return len(text) <= LONGEST_TITLE and text.replace("_", "").isalnum()


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _refuse_repeated(titles: Sequence[str], name: str) -> None:
    counts = Counter(filter(None, titles))
    for title, count in counts.items():
        if count > 1:
            places = [str(n) for n, one in enumerate(titles, 1) if one == title]
            raise no_list(
                name,
                f"columns {' and '.join(places)} are both called {title[:SHOWN]!r}",
                "give each column a name of its own",
            )


def _quoted(text: str) -> str:
    """Return the name of a column for the shell, unless it is long or can't be printed."""
    return quoted(text) if text.isprintable() and len(text) <= SHOWN else "NAME"
