"""`retry`, `cancel`, `pause`, `resume`, `limit`: rows that a running crawl obeys at once."""

import sqlite3
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import click

from crawler.cli.options import MOST, database_option, found
from crawler.cli.terminal import as_record, print_json, print_table, printable, tell
from crawler.clock import wall_ms
from crawler.database import Writer, reading, writing
from crawler.errors import CrawlerError, Exit
from crawler.ledger import control
from crawler.ledger.intake import current_prompt, prompts
from crawler.ledger.look import limits
from crawler.states import RequestState
from crawler.words import as_added


@click.command(
    epilog="""\b
Examples:
  crawler retry                 everything that has failed
  crawler retry abrogate        one word
  crawler retry --cancelled     what was cancelled""",
)
@click.argument("words", nargs=-1)
@click.option("--cancelled", is_flag=True, help="What was cancelled, instead of what has failed.")
@click.option("--prompt", "name", help="Only of this prompt.")
@database_option
def retry(words: Sequence[str], name: str | None, db: Path, *, cancelled: bool) -> None:
    """Ask again what has failed, with a new budget of failures."""
    state = RequestState.CANCELLED if cancelled else RequestState.FAILED
    with _open(db) as writer:
        prompt_ids, word_ids = writer.run(_chosen, name, words)
        count = writer.run(control.retry, prompt_ids, word_ids, [state])
    tell(f"{count} {state} {_requests(count)} pending again")


@click.command(
    epilog="Examples: crawler cancel abrogate · crawler cancel --all",
)
@click.argument("words", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Every word that is still to be asked.")
@click.option("--prompt", "name", help="Only of this prompt.")
@database_option
def cancel(words: Sequence[str], name: str | None, db: Path, *, everything: bool) -> None:
    """Don't ask what has not been asked yet; what is in flight is still recorded."""
    if bool(words) == everything:
        raise click.UsageError("name the words, or say --all")
    with _open(db) as writer:
        prompt_ids, word_ids = writer.run(_chosen, name, words)
        done = writer.run(control.cancel, prompt_ids, word_ids)
    tell(f"{done.requests} pending {_requests(done.requests)} cancelled")
    if done.in_flight:
        tell(f"{done.in_flight} in flight: an answer is kept, but it is not tried again")


@click.command(
    epilog="Examples: crawler pause · crawler pause openai",
)
@click.argument("limit", required=False)
@database_option
def pause(limit: str | None, db: Path) -> None:
    """Start nothing more (under a limit, or under any), until resume."""
    with _open(db) as writer:
        writer.run(_known, limit)
        writer.run(control.pause, limit, wall_ms())
    tell(f"{limit or 'everything'} is paused; go on with crawler resume {limit or ''}".rstrip())


@click.command(epilog="Examples: crawler resume · crawler resume openai")
@click.argument("limit", required=False)
@database_option
def resume(limit: str | None, db: Path) -> None:
    """Go on after a pause; a gate that a refusal has closed is opened for a try, too."""
    with _open(db) as writer:
        writer.run(_known, limit)
        writer.run(control.resume, limit)
    tell(f"{limit or 'everything'} goes on")


@click.command(
    epilog="""\b
Examples:
  crawler limit                              show them
  crawler limit openai --per-minute 600
  crawler limit openai --per-minute none --concurrency 50""",
)
@click.argument("name", required=False)
@click.option("--per-minute", metavar="N|none", help="Calls that may start in any 60 s.")
@click.option("--concurrency", type=click.IntRange(1, MOST), help="Calls in flight at once.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@database_option
def limit(
    name: str | None, per_minute: str | None, concurrency: int | None, db: Path, *, as_json: bool
) -> None:
    """Show or set limits; a running crawl obeys within a second."""
    if per_minute is not None or concurrency is not None:
        if name is None:
            raise click.UsageError("name the limit to set")
        number = _per_minute(per_minute)
        with _open(db) as writer:
            writer.run(_known, name)
            if per_minute is not None:
                writer.run(control.set_per_minute, name, number)
            if concurrency is not None:
                writer.run(control.set_concurrency, name, concurrency)
    with reading(db) as conn:
        _known(conn, name)
        rows = [row for row in limits(conn) if name in (None, row.name)]
    if as_json:
        print_json([as_record(row) for row in rows])
        return
    print_table(
        ("limit", "concurrency", "per minute", ""),
        [
            (
                row.name,
                row.concurrency,
                row.per_minute or "none",
                "paused" if row.paused_at_ms is not None else "",
            )
            for row in rows
        ],
    )


def _open(db: Path) -> AbstractContextManager[Writer]:
    """Open a database for a change; like a command that reads, never creates one."""
    with reading(db):
        return writing(db, wall_ms())


def _chosen(
    conn: sqlite3.Connection, name: str | None, words: Sequence[str]
) -> tuple[list[int], list[int] | None]:
    """Return the ids of the prompts and words that a user means. Raises CrawlerError."""
    if name is None:
        prompt_ids = [row.id for row in prompts(conn) if row.current]
    else:
        prompt_ids = [found(current_prompt(conn, name), name).id]
    word_ids = [control.word_id(conn, as_added(word)) for word in words]
    for word, word_id in zip(words, word_ids, strict=True):
        if word_id is None:
            raise CrawlerError(
                f"there is no word {printable(word)!r}",
                "it has not been added to this database; nothing was changed",
                f"crawler add {printable(word)}",
                Exit.USAGE,
            )
    return prompt_ids, [word_id for word_id in word_ids if word_id is not None] or None


def _known(conn: sqlite3.Connection, name: str | None) -> None:
    known = [row.name for row in limits(conn)]
    if name is not None and name not in known:
        raise CrawlerError(
            f"there is no limit {printable(name)!r}",
            f"the limits are {', '.join(map(printable, known)) or 'none yet'}",
            "crawler limit",
            Exit.USAGE,
        )


def _per_minute(text: str | None) -> int | None:
    if text is None or text == "none":
        return None
    if text.isdecimal() and 0 < int(text) <= MOST:
        return int(text)
    raise click.BadParameter(
        f"{text!r} is neither a number of calls nor none", param_hint="--per-minute"
    )


def _requests(count: int) -> str:
    return "request is" if count == 1 else "requests are"
