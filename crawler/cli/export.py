"""`crawler export`: results out, in the order of the list."""

import os
import signal
import sqlite3
import stat
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

import click

from crawler.cli.export_forms import (
    FORMS,
    TEXT_FORMS,
    Column,
    Rows,
    columns,
    compared_columns,
    form_of,
    write_csv,
    write_json,
    write_json_lines,
    write_parquet,
    write_workbook,
)
from crawler.cli.options import database_option, meant
from crawler.cli.options import found as found_prompt
from crawler.cli.selecting import Typed, answer_options, selected, typed
from crawler.cli.terminal import printable, tell
from crawler.errors import CrawlerError, Exit, count_of
from crawler.ledger.comparing import Compared, Side, compared
from crawler.ledger.intake import current_prompt
from crawler.ledger.intake import prompts as all_prompts
from crawler.ledger.items import key_columns
from crawler.ledger.results import Result, field_names, results, results_of
from crawler.storage.database import reading
from crawler.storage.whole_file import unfinished


@click.command(
    epilog="""\b
Examples:
  crawler export notes.xlsx
  crawler export -o notes.csv --prompt define
  crawler export failed.csv --failed
  crawler export both.xlsx --side-by-side --prompt define@1 --prompt define@2
  crawler export --all --format jsonl | jq .text""",
)
@click.argument("file", required=False, metavar="[FILE]")
@click.option("-o", "--output", metavar="FILE", help="The same; - is standard output.")
@click.option("--format", "named", type=click.Choice(FORMS), help="By the file's name.")
@click.option(
    "--prompt",
    "prompts",
    multiple=True,
    metavar="NAME",
    help="Of which prompt.  [default: the only one there is]",
)
@answer_options
@click.option("--all", "everything", is_flag=True, help="Also the words that have no answer.")
@click.option(
    "--side-by-side",
    "beside",
    is_flag=True,
    help="A row a word, a column a prompt or NAME@VERSION.",
)
@click.option("--differ", is_flag=True, help="Side by side, only where the answers differ.")
@click.option("--force", is_flag=True, help="Replace the file.")
@database_option
def export(
    *,
    file: str | None,
    output: str | None,
    named: str | None,
    prompts: Sequence[str],
    db: Path,
    everything: bool,
    beside: bool,
    differ: bool,
    force: bool,
    **said: Any,
) -> None:
    """Write the answers of a prompt, in the order of the list.

    Those that an older version gave are stale, and say so. With --failed, --stale, --bad or
    --state only those words; what has failed has no answer, and is written with them.

    The file's suffix is its form: csv, tsv, json, jsonl, xlsx, parquet. An answer with a schema has
    a column for each of its fields. CSV cells that a spreadsheet would take for a formula get a '
    in front; the other forms are exact.
    """
    if file is not None and output is not None:
        raise click.BadArgumentUsage(f"{file} and -o {output} name two files")
    target = file or output or "-"
    form = form_of(target, named)
    asked = typed((), prompts, **said)
    if differ and not beside:
        raise click.UsageError("--differ belongs to --side-by-side")
    with reading(db) as conn:
        if beside:
            found = _beside(conn, asked, differ=differ, everything=everything)
        else:
            found = _of_one(conn, asked, everything=everything)
        if found.is_empty and target != "-":
            tell(f"none is selected; {target} was not written")
            return
        with _target(target, db, force=force, binary=form not in TEXT_FORMS) as stream:
            _write(form, stream, found.rows, found.table, target)
    tell(found.ending())


class _Export(NamedTuple):
    """What is written, its columns, and what is told when that is done."""

    rows: Rows
    table: Sequence[Column]
    ending: Callable[[], str]
    is_empty: bool = False
    """Nothing is selected."""


def _of_one(conn: sqlite3.Connection, asked: Typed, *, everything: bool) -> _Export:
    """Return the answers of one prompt. Raises CrawlerError where several are named."""
    if len(asked.names) > 1:
        raise click.UsageError("an export is of one prompt; several: --side-by-side")
    name = meant(conn, asked.names[0] if asked.names else None)
    prompt = found_prompt(current_prompt(conn, name), name)
    some = None if asked.is_empty else selected(conn, asked._replace(names=(name,)))[0].ids
    rows = results(conn, prompt.id) if some is None else results_of(conn, some)
    tally, wanted = _Tally(), everything or bool(asked.selectors.states)
    chosen = (row for row in tally.counted(rows) if wanted or row.text is not None)
    table = columns(prompt, field_names(conn, prompt.id), keyed=bool(key_columns(conn)))

    def ending() -> str:
        have = "has" if tally.answered == 1 else "have"
        return f"{tally.answered} of {count_of(tally.words, 'word')} {have} an answer"

    return _Export(chosen, table, ending, is_empty=some == [])


def _beside(conn: sqlite3.Connection, asked: Typed, *, differ: bool, everything: bool) -> _Export:
    """Return the answers of several prompts, or versions of one, side by side."""
    if not asked.is_empty:
        raise click.UsageError("--side-by-side takes no other selectors than --prompt")
    sides = [_side(conn, name) for name in dict.fromkeys(asked.names)] or [
        Side(one, is_exact=False) for one in all_prompts(conn) if one.current and not one.removed
    ]
    fields = [name for side in sides for name in field_names(conn, side.prompt.id)]
    table = compared_columns(sides, list(dict.fromkeys(fields)), keyed=bool(key_columns(conn)))
    written = left_out = 0

    def rows() -> Iterator[Compared]:
        nonlocal written, left_out
        for row in compared(conn, sides):
            if not (row.is_whole or everything):
                left_out += 1
            elif row.differs or not differ:
                written += 1
                yield row

    def ending() -> str:
        more = f" ({left_out} more without an answer of each: --all)" if left_out else ""
        return count_of(written, "row") + more

    return _Export(rows(), table, ending)


def _side(conn: sqlite3.Connection, named: str) -> Side:
    """Return what NAME or NAME@VERSION stands for. Raises CrawlerError."""
    name, at, number = named.rpartition("@")
    prompt = current_prompt(conn, named)
    if prompt is not None or not at:
        return Side(found_prompt(prompt, named), is_exact=False)
    for one in all_prompts(conn):
        if one.name == name and str(one.version) == number:
            return Side(one, is_exact=True)
    raise CrawlerError(
        f"there is no version {printable(number)} of a prompt {printable(name)!r}",
        "no answer was written",
        "crawler prompt list",
        Exit.USAGE,
    )


def _write(form: str, stream: Any, rows: Rows, table: Sequence[Column], name: str) -> None:
    match form:
        case "csv":
            write_csv(stream, rows, table)
        case "tsv":
            write_csv(stream, rows, table, "\t")
        case "json":
            write_json(stream, rows)
        case "jsonl":
            write_json_lines(stream, rows)
        case "xlsx":
            write_workbook(stream, rows, table, name)
        case _:
            write_parquet(stream, rows, table, name)


class _Tally:
    """Counts rows as they pass."""

    words = 0
    answered = 0

    def counted(self, rows: Iterable[Result]) -> Iterator[Result]:
        for row in rows:
            self.words += 1
            self.answered += row.text is not None
            yield row


@contextmanager
def _target(output: str, db: Path, *, force: bool, binary: bool) -> Iterator[IO[Any]]:
    """Open the output; a file is there whole or not at all."""
    if output == "-":
        yield _standard_output(binary=binary)
        return
    path = Path(output).resolve()
    _require_ordinary(path, db.resolve())
    if path.exists() and not force:
        raise CrawlerError(
            f"{output} is there already",
            "it might hold something that you have changed by hand",
            "name another file, or replace it with --force",
            Exit.USAGE,
        )
    _end_politely()
    with unfinished(path, output) as hidden:
        with _opened(hidden, binary=binary) as stream:
            yield stream
            stream.flush()
            if path.exists():
                os.fchmod(stream.fileno(), stat.S_IMODE(path.stat().st_mode))
            os.fsync(stream.fileno())
        hidden.replace(path)


def _opened(path: Path, *, binary: bool) -> IO[Any]:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    return os.fdopen(fd, "wb") if binary else os.fdopen(fd, "w", encoding="utf-8", newline="")


def _standard_output(*, binary: bool) -> IO[Any]:
    if binary and sys.stdout.isatty():
        raise CrawlerError(
            "this form can't be written to a terminal",
            "it is no text",
            "name a file: crawler export results.xlsx",
            Exit.USAGE,
        )
    return sys.stdout.buffer if binary else sys.stdout


def _end_politely() -> None:
    """Have the signals that end a program do so as Ctrl-C does: what is unfinished is removed."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, interrupt)


def _require_ordinary(path: Path, db: Path) -> None:
    """Refuse to replace the database, or anything that is not an ordinary file."""
    if path == db or (path.name.startswith(f"{db.name}-") and path.parent == db.parent):
        cause = "that is the database itself, or a file that belongs to it"
    elif path.exists() and not path.is_file():
        cause = "there is something that is no ordinary file"
    else:
        return
    raise CrawlerError(f"{path} can't be written", cause, "name another file", Exit.USAGE)
