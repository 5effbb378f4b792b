"""The forms in which results are written: tables for programs and spreadsheets, JSON.

Rule: rows are written as they come, so that memory does not grow with the list, and nothing is cut
or changed without a word.
"""

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import PurePath
from typing import Any, BinaryIO, NamedTuple, TextIO

from crawler.answer_schema import property_names
from crawler.cli.terminal import as_json, moment, safe_cell, tell
from crawler.errors import CrawlerError, Exit, count_of, missing_package
from crawler.ledger.comparing import Compared, Side
from crawler.ledger.intake import Prompt
from crawler.ledger.prompt_views import free_name
from crawler.ledger.results import Result

TEXT_FORMS = ("csv", "tsv", "json", "jsonl")
FORMS = (*TEXT_FORMS, "xlsx", "parquet")
MOST_ROWS = 1_048_575
"""Rows below the header of an Excel sheet."""
LONGEST_CELL = 32_767
"""Characters of a cell of Excel."""
BATCH = 10_000
"""Rows of a group in a Parquet file."""

Rows = Iterable[Result | Compared]
_COUNTS = ("tokens_in", "tokens_out", "attempts")


class Column(NamedTuple):
    """A column of a table: its name, and the value of a result in it."""

    name: str
    value: Callable[[Any], Any]
    is_count: bool = False
    """Its values are integers of ours."""


def form_of(output: str, named: str | None) -> str:
    """Return the form of a file by its suffix, of standard output by the switch.

    Raises CrawlerError for a suffix that is none, and for one that the switch contradicts.
    """
    suffix = PurePath(output).suffix.lower().removeprefix(".")
    if output == "-":
        return named or "csv"
    if suffix in FORMS and named in (None, suffix):
        return suffix
    if named is not None and suffix not in FORMS:
        return named
    raise CrawlerError(
        f"{output} can't be written",
        f"--format {named} contradicts its name" if named else "its suffix names no form",
        f"give it one of these: {', '.join(FORMS)}",
        Exit.USAGE,
    )


def columns(prompt: Prompt, fields: Sequence[str], *, keyed: bool = False) -> list[Column]:
    """Return the columns of a table of a prompt's results, each with a name of its own.

    The answer is one column, or one for each field of its schema; the word's own columns follow.
    """
    answers = [Column(name, _answered(name)) for name in property_names(prompt.params)]
    found = [
        *([Column("key", _own("key"))] if keyed else []),
        Column("word", lambda row: row.word),
        *(answers or [Column("text", lambda row: row.text)]),
        *(Column(name, _listed(name)) for name in fields),
        *(Column(name, _own(name)) for name in ("state", "reason", "prompt")),
        Column("version", _own("version"), is_count=True),
        Column("stale", lambda row: "yes" if row.stale else None),
        *(Column(name, _own(name)) for name in ("provider", "model", "review", "note")),
        *(Column(name, _own(name), is_count=True) for name in _COUNTS),
        Column("finished_at", lambda row: moment(row.finished_at_ms) or None),
    ]
    taken: set[str] = set()
    return [column._replace(name=free_name(column.name, taken)) for column in found]


def compared_columns(sides: Sequence[Side], fields: Sequence[str], *, keyed: bool) -> list[Column]:
    """Return the columns of a table of several sides' answers: the word's own, then theirs.

    A side's answer is one column, or one for each field of its schema.
    """
    found = [
        *([Column("key", _own("key"))] if keyed else []),
        Column("word", _own("word")),
        *(Column(name, _listed(name)) for name in fields),
    ]
    for side in sides:
        names = property_names(side.prompt.params)
        found += [Column(f"{side.name}.{name}", _said(side.name, name)) for name in names] or [
            Column(f"{side.name} {side.prompt.model}", _said(side.name))
        ]
    taken: set[str] = set()
    return [column._replace(name=free_name(column.name, taken)) for column in found]


def write_csv(stream: TextIO, rows: Rows, table: Sequence[Column], separator: str = ",") -> None:
    """Write a table as text; cells that a spreadsheet takes for a formula get a ' in front."""
    writer = csv.writer(stream, delimiter=separator, lineterminator="\n")
    writer.writerow([safe_cell(column.name) for column in table])
    for row in rows:
        writer.writerow([safe_cell(_flat(column.value(row))) for column in table])


def write_json_lines(stream: TextIO, rows: Rows) -> None:
    """Write one object a line."""
    stream.writelines(f"{as_json(row._asdict())}\n" for row in rows)


def write_json(stream: TextIO, rows: Rows) -> None:
    """Write an array of objects."""
    before = "[\n"
    for row in rows:
        stream.write(f"{before}{as_json(row._asdict())}")
        before = ",\n"
    stream.write("\n]\n" if before != "[\n" else "[]\n")


def write_workbook(stream: BinaryIO, rows: Rows, table: Sequence[Column], name: str) -> None:
    """Write an Excel workbook of one sheet, and tell how many cells it had no room for.

    Raises CrawlerError where openpyxl is missing, and for more rows than a sheet has.
    """
    try:
        from openpyxl import Workbook  # noqa: PLC0415 - an optional package
    except ImportError as error:
        raise missing_package(
            f"{name} can't be written", "openpyxl", "xlsx", "write a .csv"
        ) from error
    book = Workbook(write_only=True)
    sheet = book.create_sheet("results")
    cells = _Cells(sheet)
    sheet.append([cells.cell(column.name) for column in table])
    for number, row in enumerate(rows, 1):
        if number > MOST_ROWS:
            raise CrawlerError(
                f"{name} can't be written",
                f"a sheet of Excel has {MOST_ROWS:,} rows, and there are more results",
                "crawler export results.csv",
                Exit.USAGE,
            )
        sheet.append([cells.cell(_flat(column.value(row))) for column in table])
    book.save(stream)
    if cells.cut:
        cut = count_of(cells.cut, "cell")
        tell(f"{name}: {cut} cut at {LONGEST_CELL:,} characters; CSV has all of it")


class _Cells:
    """Makes cells of a sheet: texts are never formulas, and what has no room is counted."""

    def __init__(self, sheet: Any) -> None:
        from openpyxl.cell import WriteOnlyCell  # noqa: PLC0415 - an optional package
        from openpyxl.cell.cell import ILLEGAL_CHARACTERS_RE  # noqa: PLC0415

        self.cut = 0
        self._sheet, self._make, self._illegal = sheet, WriteOnlyCell, ILLEGAL_CHARACTERS_RE

    def cell(self, value: object) -> object:
        if not isinstance(value, str):
            return value
        text = self._illegal.sub(lambda found: f"\\x{ord(found[0]):02x}", value)
        self.cut += len(text) > LONGEST_CELL
        cell = self._make(self._sheet, text[:LONGEST_CELL])
        cell.data_type = "s"
        return cell


def write_parquet(stream: BinaryIO, rows: Rows, table: Sequence[Column], name: str) -> None:
    """Write a Parquet file; texts are strings, counts are integers.

    Raises CrawlerError where pyarrow is missing.
    """
    try:
        import pyarrow as pa  # noqa: PLC0415 - an optional package
        from pyarrow.parquet import ParquetWriter  # noqa: PLC0415
    except ImportError as error:
        raise missing_package(
            f"{name} can't be written", "pyarrow", "parquet", "write a .csv"
        ) from error
    kinds = [pa.int64() if column.is_count else pa.string() for column in table]
    names = [column.name for column in table]
    schema = pa.schema(list(zip(names, kinds, strict=True)))
    with ParquetWriter(stream, schema) as writer:
        for group in _groups(rows):
            arrays = [
                pa.array([_as(kind, column.value(row), pa) for row in group], kind)
                for column, kind in zip(table, kinds, strict=True)
            ]
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema))


def _groups(rows: Rows) -> Iterator[list[Result | Compared]]:
    left = iter(rows)
    while group := list(islice(left, BATCH)):
        yield group


def _as(kind: object, value: Any, pa: Any) -> Any:
    flat = _flat(value)
    return flat if kind == pa.int64() or flat is None else str(flat)


def _flat(value: Any) -> Any:
    """Return a value as a cell has it: what is nested as JSON."""
    if isinstance(value, bool | dict | list):
        return json.dumps(value, ensure_ascii=False)
    return value


def _answered(name: str) -> Callable[[Result], Any]:
    return lambda row: _field(row.text, name)


def _said(side: str, name: str | None = None) -> Callable[[Compared], Any]:
    if name is None:
        return lambda row: row.answers[side]
    return lambda row: _field(row.answers[side], name)


def _field(text: str | None, name: str) -> Any:
    answer = json.loads(text) if text is not None else {}
    return answer.get(name) if isinstance(answer, dict) else None


def _listed(name: str) -> Callable[[Any], Any]:
    return lambda row: row.fields.get(name)


def _own(name: str) -> Callable[[Any], Any]:
    return lambda row: getattr(row, name)
