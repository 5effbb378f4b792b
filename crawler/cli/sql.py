"""`crawler sql`: questions in SQL, which can only read.

Rule: what a user typed runs on a connection that can't write (`mode=ro` and `query_only`), can do
nothing that is not named here (a deny-by-default authorizer), and can't run or grow without end.
"""

import csv
import os
import sqlite3
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import click

from crawler.cli.options import database_option
from crawler.cli.terminal import as_json, print_json, print_line, print_table, safe_cell, tell_error
from crawler.errors import CrawlerError, Exit
from crawler.storage.database import bound_memory, open_table_functions, reading

DEFAULT_TIMEOUT_S = 60
STEPS_BETWEEN_LOOKS = 10_000
STUCK_S = 1.0
"""How long one step of SQLite may take when the time is over."""
LONGEST_QUERY = 1_000_000
LONGEST_VALUE = 50_000_000
MOST_MEMORY = 256 * 2**20
"""What SQLite may use: a row may have thousands of long values."""
LONGEST_ANSWER = 200_000_000
"""What is kept in memory at once; CSV and JSON lines are written as they come."""
CELL_OVERHEAD = 100
PRAGMAS = frozenset(
    {"foreign_key_list", "index_info", "index_list", "table_info", "table_list", "table_xinfo"}
)
FORBIDDEN_FUNCTIONS = frozenset(
    {"edit", "fts3_tokenizer", "load_extension", "readfile", "writefile"}
)


@click.command(
    epilog="""\b
Examples:
  crawler sql "select word, text from results limit 5"
  crawler sql "select outcome, reason, count(*) from failures group by 1, 2"
  crawler sql --csv "select word, text from results" > notes.csv
  crawler sql "select name from sqlite_schema where type = 'view'"
""",
)
@click.argument("query")
@click.option("--json", "form", flag_value="json", help="As a JSON array of objects.")
@click.option("--csv", "form", flag_value="csv", help="As CSV, safe for spreadsheets.")
@click.option("--jsonl", "form", flag_value="jsonl", help="As JSON lines.")
@click.option("--timeout", default=DEFAULT_TIMEOUT_S, show_default=True, help="In seconds.")
@database_option
def sql(query: str, form: str | None, timeout: int, db: Path) -> None:
    """Ask the database in SQL.

    Views are results, failures, progress, throughput_per_minute and limit_history.
    A prompt whose answers have a schema has a view of its own: study-notes has study_notes.
    """
    if query == "-":
        query = sys.stdin.read()
    with reading(db) as conn:
        restrict(conn, timeout)
        try:
            with _Watch(timeout) as watch:
                columns, rows = watch.ask(conn, query)
                _print(columns, rows, form)
        except (sqlite3.Error, sqlite3.Warning, UnicodeEncodeError) as error:
            raise _unanswered(str(error)) from error
        except MemoryError as error:
            raise _unanswered("it needs too much memory") from error


def restrict(conn: sqlite3.Connection, timeout_s: float) -> None:
    """Leave a connection nothing but reading, for a while."""
    give_up_at = time.monotonic() + timeout_s
    conn.setlimit(sqlite3.SQLITE_LIMIT_SQL_LENGTH, LONGEST_QUERY)
    conn.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, LONGEST_VALUE)
    conn.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
    conn.set_progress_handler(lambda: time.monotonic() > give_up_at, STEPS_BETWEEN_LOOKS)
    open_table_functions(conn)
    bound_memory(conn, MOST_MEMORY)
    conn.set_authorizer(_authorize)


def _authorize(
    action: int, first: str | None, second: str | None, database: str | None, trigger: str | None
) -> int:
    del database, trigger
    allowed = (
        action in (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_RECURSIVE)
        or (action == sqlite3.SQLITE_FUNCTION and second not in FORBIDDEN_FUNCTIONS)
        or (action == sqlite3.SQLITE_PRAGMA and first in PRAGMAS)
    )
    return sqlite3.SQLITE_OK if allowed else sqlite3.SQLITE_DENY


def _unanswered(cause: str) -> CrawlerError:
    return CrawlerError(
        "the query can't be answered",
        cause,
        'crawler sql "select name, sql from sqlite_schema" shows tables and views',
        Exit.USAGE,
    )


def _print(columns: list[str], rows: Iterator[tuple[Any, ...]], form: str | None) -> None:
    match form:
        case "json":
            print_json(
                [dict(zip(columns, map(_jsonable, row), strict=True)) for row in _kept(rows)]
            )
        case "jsonl":
            for row in rows:
                record = dict(zip(columns, map(_jsonable, row), strict=True))
                print_line(as_json(record))
        case "csv":
            writer = csv.writer(sys.stdout, lineterminator="\n")
            writer.writerow([safe_cell(column) for column in columns])
            writer.writerows([safe_cell(value) for value in row] for row in rows)
        case _ if columns:
            print_table(columns, _kept(rows))


def _kept(rows: Iterable[tuple[Any, ...]]) -> Iterator[tuple[Any, ...]]:
    """Yield rows that are to be in memory together. Raises CrawlerError if they are too long."""
    size = 0
    for row in rows:
        texts = (value for value in row if isinstance(value, str | bytes))
        size += CELL_OVERHEAD * len(row) + sum(map(len, texts))
        if size > LONGEST_ANSWER:
            raise CrawlerError(
                "the answer is too long",
                f"it has more than {LONGEST_ANSWER // 1_000_000} MB, and all of it would be held",
                "add a LIMIT, or have it written as it comes: --csv, --jsonl",
                Exit.USAGE,
            )
        yield row


def _jsonable(value: object) -> object:
    return value.hex() if isinstance(value, bytes) else value


class _Watch:
    """Ends the process when SQLite does not come back: one step of it can't be interrupted.

    A step is short, but for what searches long texts (instr, replace, trim, LIKE), and a question
    may take its time before the first step. Only time in SQLite counts: who reads slowly is waited
    for.
    """

    def __init__(self, timeout_s: float) -> None:
        self._give_up_at = time.monotonic() + timeout_s
        self._since: float | None = None  # when SQLite was called, if it has not come back
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        self._over.set()
        self._thread.join()

    def ask(
        self, conn: sqlite3.Connection, query: str
    ) -> tuple[list[str], Iterator[tuple[Any, ...]]]:
        """Return the names of the columns, and the rows as they come."""
        self._since = time.monotonic()
        cursor = conn.execute(query)
        self._since = None
        return [name for name, *_ in cursor.description or ()], self._rows(cursor)

    def _rows(self, cursor: sqlite3.Cursor) -> Iterator[tuple[Any, ...]]:
        while True:
            self._since = time.monotonic()
            row = cursor.fetchone()
            self._since = None
            if row is None:
                return
            yield row

    def _look(self) -> None:
        while not self._over.wait(STUCK_S / 4):
            now, since = time.monotonic(), self._since
            if since is not None and now > max(self._give_up_at, since) + STUCK_S:
                tell_error(_unanswered("its time is over"))
                os._exit(Exit.USAGE)  # it only reads: nothing is left half done
