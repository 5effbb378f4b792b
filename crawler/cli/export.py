"""`crawler export`: results out, in the order of the list."""

import csv
import os
import signal
import stat
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

import click

from crawler.cli.builtin import STUDY_NOTES
from crawler.cli.options import database_option, found
from crawler.cli.terminal import as_json, safe_cell, tell
from crawler.errors import CrawlerError, Exit
from crawler.ledger.intake import current_prompt
from crawler.ledger.results import Result, field_names, results
from crawler.storage.database import reading

COLUMNS = ("text", "state", "reason", "prompt", "version", "provider", "model")
COUNTS = ("tokens_in", "tokens_out", "attempts")


@click.command(
    epilog="""\b
Examples:
  crawler export -o notes.csv
  crawler export --all --format jsonl | jq .text""",
)
@click.option("-o", "--output", metavar="FILE", help="Where to; - is standard output.", default="-")
@click.option("--format", "form", type=click.Choice(["csv", "jsonl"]), help="By the file's name.")
@click.option("--prompt", "name", default=STUDY_NOTES, show_default=True, help="Of which prompt.")
@click.option("--all", "everything", is_flag=True, help="Also the words that have no answer.")
@click.option("--force", is_flag=True, help="Replace the file.")
@database_option
def export(
    output: str, form: str | None, name: str, db: Path, *, everything: bool, force: bool
) -> None:
    """Write the answers of a prompt's current version, in the order of the list.

    CSV cells that a spreadsheet would take for a formula get a ' in front; JSON lines are exact.
    """
    form = form or ("jsonl" if output.endswith(".jsonl") else "csv")
    with reading(db) as conn:
        prompt = found(current_prompt(conn, name), name)
        fields = field_names(conn, prompt.id)
        with _target(output, db, force=force) as stream:
            tally = _Tally()
            rows = tally.counted(results(conn, prompt.id))
            chosen = (row for row in rows if everything or row.text is not None)
            (_write_csv if form == "csv" else _write_json_lines)(stream, chosen, fields)
    tell(f"{tally.answered} of {tally.words} words have an answer")


class _Tally:
    """Counts rows as they pass."""

    words = 0
    answered = 0

    def counted(self, rows: Iterable[Result]) -> Iterator[Result]:
        for row in rows:
            self.words += 1
            self.answered += row.text is not None
            yield row


def _write_csv(stream: TextIO, rows: Iterable[Result], fields: list[str]) -> None:
    writer = csv.writer(stream, lineterminator="\n")
    header = ["word", *COLUMNS[:1], *fields, *COLUMNS[1:], *COUNTS]
    writer.writerow([safe_cell(name) for name in header])
    for row in rows:
        record = row._asdict()
        values = [row.word, row.text, *(row.fields.get(field) for field in fields)]
        values += [record[column] for column in (*COLUMNS[1:], *COUNTS)]
        writer.writerow([safe_cell(value) for value in values])


def _write_json_lines(stream: TextIO, rows: Iterable[Result], fields: list[str]) -> None:
    del fields  # each object has its own
    stream.writelines(as_json(row._asdict()) + "\n" for row in rows)


@contextmanager
def _target(output: str, db: Path, *, force: bool) -> Iterator[TextIO]:
    """Open the output; a file is there whole or not at all."""
    if output == "-":
        yield sys.stdout
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
    _clean_up(path)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        _end_politely()
        fd = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        if path.exists():
            os.fchmod(fd, stat.S_IMODE(path.stat().st_mode))
        with os.fdopen(fd, "w", encoding="utf-8", newline="") as stream:
            yield stream
            stream.flush()
            os.fsync(fd)
        unfinished.replace(path)
    except OSError as error:
        raise CrawlerError(
            f"{output} can't be written",
            error.strerror or str(error),
            "name another file",
            Exit.USAGE,
        ) from error
    finally:
        with suppress(OSError):
            unfinished.unlink()


def _end_politely() -> None:
    """Have the signals that end a program do so as Ctrl-C does: what is unfinished is removed."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, interrupt)


def _clean_up(path: Path) -> None:
    """Remove what exports of this file have left that were killed; each was its process's own."""
    begin = f".{path.name}."
    with suppress(OSError):
        for found in path.parent.iterdir():
            process = found.name.removeprefix(begin)
            is_named_so = process != found.name and process.isdecimal()
            if is_named_so and found.is_file() and not Path(f"/proc/{process}").exists():
                found.unlink()


def _require_ordinary(path: Path, db: Path) -> None:
    """Refuse to replace the database, or anything that is not an ordinary file."""
    if path == db or (path.name.startswith(f"{db.name}-") and path.parent == db.parent):
        cause = "that is the database itself, or a file that belongs to it"
    elif path.exists() and not path.is_file():
        cause = "there is something that is no ordinary file"
    else:
        return
    raise CrawlerError(f"{path} can't be written", cause, "name another file", Exit.USAGE)
