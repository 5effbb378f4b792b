"""`crawler export`: results out, in the order of the list."""

import os
import signal
import stat
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import click

from crawler.cli.export_forms import (
    FORMS,
    TEXT_FORMS,
    Column,
    Rows,
    columns,
    form_of,
    write_csv,
    write_json,
    write_json_lines,
    write_parquet,
    write_workbook,
)
from crawler.cli.options import database_option, found, meant, prompt_option
from crawler.cli.selecting import answer_options, selected, typed
from crawler.cli.terminal import tell
from crawler.errors import CrawlerError, Exit, count_of
from crawler.ledger.intake import current_prompt
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
  crawler export --all --format jsonl | jq .text""",
)
@click.argument("file", required=False, metavar="[FILE]")
@click.option("-o", "--output", metavar="FILE", help="The same; - is standard output.")
@click.option("--format", "named", type=click.Choice(FORMS), help="By the file's name.")
@prompt_option("Of which prompt.")
@answer_options
@click.option("--all", "everything", is_flag=True, help="Also the words that have no answer.")
@click.option("--force", is_flag=True, help="Replace the file.")
@database_option
def export(
    *,
    file: str | None,
    output: str | None,
    named: str | None,
    name: str | None,
    db: Path,
    everything: bool,
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
    with reading(db) as conn:
        name = meant(conn, name)
        prompt = found(current_prompt(conn, name), name)
        keyed = bool(key_columns(conn))
        table = columns(prompt, field_names(conn, prompt.id), keyed=keyed)
        asked = typed((), (name,), **said)
        some = None if asked.is_empty else selected(conn, asked)[0].ids
        if target != "-" and some == []:
            tell(f"none is selected; {target} was not written")
            return
        with _target(target, db, force=force, binary=form not in TEXT_FORMS) as stream:
            tally = _Tally()
            found_rows = results(conn, prompt.id) if some is None else results_of(conn, some)
            rows = tally.counted(found_rows)
            everything = everything or bool(asked.selectors.states)
            chosen = (row for row in rows if everything or row.text is not None)
            _write(form, stream, chosen, table, target)
    have = "has" if tally.answered == 1 else "have"
    tell(f"{tally.answered} of {count_of(tally.words, 'word')} {have} an answer")


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
