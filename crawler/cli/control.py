"""`cancel`, `pause`, `resume`, `limit`: rows that a running crawl obeys at once."""

import sqlite3
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import click

from crawler.cli.options import Moment, Number, changed_database_option, found
from crawler.cli.selecting import unknown_word
from crawler.cli.terminal import as_record, moment, print_json, print_table, printable, tell
from crawler.cli.why import held_line
from crawler.clock import wall_ms
from crawler.errors import CrawlerError, Exit, quoted
from crawler.ledger import control
from crawler.ledger.clocks import file_ms
from crawler.ledger.intake import current_prompt, prompts
from crawler.ledger.items import identities
from crawler.ledger.limits import limit_names, meant_limits
from crawler.ledger.status import status
from crawler.lists.words import as_added
from crawler.policy import Policy
from crawler.storage.database import Writer, reading, require_database, writing


@click.command(
    epilog="Examples: crawler cancel abrogate · crawler cancel --all",
)
@click.argument("words", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Every word that is still to be asked.")
@click.option("--prompt", "name", help="Only of this prompt.")
@changed_database_option
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
    epilog="""\b
Examples:
  crawler pause                     everything
  crawler pause vertex --until 7:30
  crawler pause --until 2h          for two hours""",
)
@click.argument("limit", required=False)
@click.option("--until", type=Moment(), help="7:30, 2026-12-24T18:00, or a time span: 90s, 2h.")
@changed_database_option
def pause(limit: str | None, until: int | None, db: Path) -> None:
    """Start nothing more (under a limit, or under any), until resume or the time that is said."""
    with _open(db) as writer:
        names = writer.run(_meant, limit)
        # The file's clock may be another than the wall's: see ledger.clocks.
        now_ms = writer.run(file_ms)
        until_ms = None if until is None else now_ms + until - wall_ms()
        for name in names:
            writer.run(control.pause, name, now_ms, until_ms)
    ends = f" until {moment(until)}" if until is not None else ""
    earlier = "earlier with" if ends else "with"
    command = f"crawler resume {quoted(limit)}" if limit else "crawler resume"
    tell(f"{_told(limit, names)} paused{ends}; go on {earlier} {command}")


@click.command(epilog="Examples: crawler resume · crawler resume openai")
@click.argument("limit", required=False)
@changed_database_option
def resume(limit: str | None, db: Path) -> None:
    """Go on after a pause; a gate that a refusal has closed is opened for a try, too."""
    with _open(db) as writer:
        for name in writer.run(_meant, limit):
            writer.run(control.resume, name, writer.run(file_ms))
    tell(f"{limit or 'everything'} goes on")


@click.command(
    epilog="""\b
Examples:
  crawler limit                              show them
  crawler limit openai --per-minute 600
  crawler limit vertex --tokens-per-minute 200000 --concurrency 50
  crawler limit vertex --per-minute none     not known: learned from refusals""",
)
@click.argument("name", required=False)
@click.option("--per-minute", type=Number(), metavar="N|none", help="Calls that start in any 60 s.")
@click.option(
    "--tokens-per-minute", type=Number(), metavar="N|none", help="Tokens of prompts and answers."
)
@click.option(
    "--concurrency", type=Number(), metavar="N|none", help="Calls in flight at once; none: found."
)
@click.option(
    "--adaptive/--fixed",
    default=None,
    help="Whether the pace follows refusals, or is as it is set whatever is refused.",
)
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@changed_database_option
def limit(
    name: str | None,
    per_minute: int | None,
    tokens_per_minute: int | None,
    concurrency: int | None,
    adaptive: bool | None,  # noqa: FBT001 - as click hands it over
    db: Path,
    *,
    as_json: bool,
) -> None:
    """Show or set limits; a running crawl obeys within a second."""
    settings = (per_minute, tokens_per_minute, concurrency, adaptive)
    if settings != (None, None, None, None):
        if name is None:
            raise click.UsageError("name the limit to set")
        with _open(db) as writer:
            for one in writer.run(_meant, name):
                writer.run(_set, one, *settings)
    with reading(db) as conn:
        names = _meant(conn, name)
        now_ms = file_ms(conn)
        found = status(conn, Policy().guard_ms, now_ms).limits
    rows = [row for row in found if row.limit in names]
    if as_json:
        print_json([as_record(row) for row in rows])
        return
    print_table(
        ("limit", "concurrency", "per minute", "tokens per minute", "pace", "learned", "now"),
        [
            (
                row.limit,
                _from(row.concurrency, row.concurrency_from),
                _from(row.per_minute, row.per_minute_from),
                _from(row.tokens_per_minute, row.tokens_from),
                "adaptive" if row.adaptive else "fixed",
                "" if row.rate is None else f"{row.rate:.3g} a minute",
                held_line(row, now_ms),
            )
            for row in rows
        ],
    )


def _from(value: int | None, origin: str | None) -> str:
    """Return a number, and whose it is where nobody has set it."""
    return str(value or "none") if origin in (None, "you") else f"{value} ({origin})"


def _set(
    conn: sqlite3.Connection,
    name: str,
    per_minute: int | None,
    tokens_per_minute: int | None,
    concurrency: int | None,
    adaptive: bool | None,  # noqa: FBT001 - three values
) -> None:
    """Set of a limit what is given."""
    if per_minute is not None:
        control.set_per_minute(conn, name, per_minute or None, file_ms(conn))
    if tokens_per_minute is not None:
        control.set_tokens_per_minute(conn, name, tokens_per_minute or None, file_ms(conn))
    if concurrency is not None:
        control.set_concurrency(conn, name, concurrency or None)
    if adaptive is not None:
        control.set_adaptive(conn, name, file_ms(conn), adaptive=adaptive)


def _open(db: Path) -> AbstractContextManager[Writer]:
    """Open a database for a change; like a command that reads, never creates one."""
    require_database(db)
    return writing(db, wall_ms())


def _chosen(
    conn: sqlite3.Connection, name: str | None, words: Sequence[str]
) -> tuple[list[int], list[int] | None]:
    """Return the ids of the prompts and words that a user means. Raises CrawlerError."""
    if name is None:
        prompt_ids = [row.id for row in prompts(conn) if row.current]
    else:
        prompt_ids = [found(current_prompt(conn, name), name).id]
    word_ids = []
    for word in words:
        named = identities(conn, as_added(word))
        if not named:
            raise unknown_word(conn, [as_added(word)])
        word_ids += [control.word_id(conn, identity) for identity in named]
    return prompt_ids, [word_id for word_id in word_ids if word_id is not None] or None


def _meant(conn: sqlite3.Connection, name: str | None) -> list[str]:
    """Return the names of the limits that a user means. Raises CrawlerError if there are none."""
    names = meant_limits(conn, name)
    if name is not None and not names:
        known = ", ".join(map(printable, limit_names(conn)))
        raise CrawlerError(
            f"there is no limit {printable(name)!r}",
            f"the limits are {known or 'none yet'}",
            "crawler limit"
            if known
            else "crawler prompt add makes one, for its provider and model",
            Exit.USAGE,
        )
    return names


def _told(limit: str | None, names: Sequence[str]) -> str:
    """Return which limits were meant, as the subject of a sentence."""
    if limit is None:
        return "everything is"
    return f"{', '.join(map(printable, names))} {'is' if len(names) == 1 else 'are'}"


def _requests(count: int) -> str:
    return "request is" if count == 1 else "requests are"
