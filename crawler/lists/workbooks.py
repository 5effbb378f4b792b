"""Reads tables that are no text: Excel workbooks and Parquet files, by packages of their own.

Rule: the packages are optional. Where one is missing, the error says which, and the list stays
unread.
"""

import json
import zipfile
from collections.abc import Iterator, Sequence
from datetime import date, datetime, time
from typing import Any, BinaryIO

from crawler.errors import missing_package
from crawler.lists.source import no_list, require_size
from crawler.lists.tables import Rows


def workbook_rows(stream: BinaryIO, name: str) -> tuple[Rows, list[str]]:
    """Return the numbered rows of a workbook's first sheet, and what has to be said of it.

    Raises CrawlerError for what is no workbook, and where openpyxl is missing.
    """
    try:
        with zipfile.ZipFile(stream) as archive:
            is_workbook = "xl/workbook.xml" in archive.namelist()
            require_size(sum(one.file_size for one in archive.infolist()), name)
    except (OSError, ValueError, zipfile.BadZipFile):
        is_workbook = False
    if not is_workbook:
        raise no_list(
            name, "it is an archive, and no Excel workbook", "unpack it, or save the list as CSV"
        )
    try:
        import openpyxl  # noqa: PLC0415 - an optional package
    except ImportError as error:
        raise missing_package(
            f"{name} can't be read", "openpyxl", "xlsx", "save the list as CSV"
        ) from error
    stream.seek(0)
    try:
        book = openpyxl.load_workbook(stream, read_only=True, data_only=True)
        sheet = book.worksheets[0]
    except Exception as error:
        raise no_list(
            name, f"it is a workbook that can't be read: {error}", "save it anew"
        ) from error
    others = len(book.worksheets) - 1
    notes = [f"read is the first of {others + 1} sheets, {sheet.title!r}"] if others else []
    return _readable(_filled(sheet.iter_rows(values_only=True)), name, "a workbook"), notes


def parquet_rows(stream: BinaryIO, name: str) -> Rows:
    """Return the numbered rows of a Parquet file, its names first.

    Raises CrawlerError for what is none, and where pyarrow is missing.
    """
    try:
        from pyarrow import ArrowException  # noqa: PLC0415 - an optional package
        from pyarrow.parquet import ParquetFile  # noqa: PLC0415
    except ImportError as error:
        raise missing_package(
            f"{name} can't be read", "pyarrow", "parquet", "save the list as CSV"
        ) from error
    try:
        file = ParquetFile(stream)
    except (ArrowException, OSError) as error:
        raise no_list(name, f"it is no Parquet file: {error}", "write it anew") from error
    # A row may take no space at all there: as many as that are of words with one letter.
    require_size(2 * file.metadata.num_rows, name)
    return _readable(_parquet(file), name, "a Parquet file")


def _readable(rows: Rows, name: str, what: str) -> Rows:
    """Yield rows, which are read as they are asked for. Raises CrawlerError where none can be."""
    try:
        yield from rows
    except Exception as error:  # of a file that somebody has spoilt the libraries raise anything
        raise no_list(name, f"it is {what} that can't be read: {error}", "save it anew") from error


def _parquet(file: Any) -> Rows:
    yield 1, file.schema_arrow.names
    number = 1
    for batch in file.iter_batches():
        for row in zip(*(column.to_pylist() for column in batch.columns), strict=True):
            number += 1
            yield number, [cell_text(value) for value in row]


def _filled(rows: Iterator[Sequence[Any]]) -> Rows:
    """Yield rows from the first that has a value, without the empty cells after the last title."""
    for number, row in enumerate(rows, 1):
        cells = [cell_text(value) for value in row]
        while cells and not cells[-1]:
            cells.pop()
        if cells:
            yield number, cells


def cell_text(value: object) -> str:
    """Return the value of a cell as text: 3.0 is 3, a day has no hour, a list is JSON."""
    if value is None or value != value:  # noqa: PLR0124 - not a number
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, datetime) and value.time() == time():
        return value.date().isoformat()
    if isinstance(value, list | dict):
        return json.dumps(value, ensure_ascii=False, default=str)
    return value.isoformat() if isinstance(value, date | time) else str(value)
