"""`crawler show`: the life of a word."""

import shutil
import sqlite3
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import click

from crawler.cli.options import database_option, one_text
from crawler.cli.selecting import Typed, selected, selector_options, typed
from crawler.cli.terminal import (
    as_record,
    moment,
    print_json,
    print_line,
    print_table,
    print_told,
    printable,
    printable_lines,
    span,
    tell,
)
from crawler.cli.why import long
from crawler.errors import CrawlerError, Exit, count_of, quoted
from crawler.ledger.clocks import file_ms
from crawler.ledger.results import TimelineRow, last_ended, results_of, timeline
from crawler.ledger.runs import live_runs
from crawler.ledger.why import Why, why_not
from crawler.lists.words import as_added
from crawler.policy import Policy
from crawler.storage.database import reading
from crawler.storage.locks import may_be_alive

LAST = 20
"""Words that are shown where none is named."""
MOST_SAID = 60
"""Characters of an answer in the table of the last words."""
_HEAD = ("word", "prompt", "outcome", "at")
_SAID = "answer or reason"
_DAY_MS = 24 * 60 * 60 * 1000
SAID = 300
"""Characters of an answer that was no good that are shown of each attempt."""


@click.command(epilog="Examples: crawler show abrogate · crawler show")
@click.argument("words", nargs=-1, metavar="[WORD]")
@selector_options
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@database_option
@click.pass_context
def show(
    ctx: click.Context, /, words: Sequence[str], db: Path, *, as_json: bool, **said: Any
) -> None:
    """Show what became of a word: every attempt, and the answer; without one the last 20 words.

    With --failed, --stale, --bad, --state or --first a line for each of those words.
    """
    asked = typed((), **said)
    if not words and not asked.is_empty:
        _show_list(db, asked, as_json=as_json)
        return
    if not words:
        _show_last(db, as_json=as_json)
        return
    word = one_text(ctx, words)
    with reading(db) as conn:
        rows = timeline(conn, as_added(word))
        whys = _whys(conn, db, {row.request_id for row in rows})
    if not rows:
        raise CrawlerError(
            f"there is no word {printable(word)!r}",
            "it has not been added to this database",
            f"crawler add {quoted(word)}",
            Exit.USAGE,
        )
    if as_json:
        print_json([{**as_record(row), "why": whys[row.request_id].code} for row in rows])
        return
    for _, attempts in groupby(rows, key=lambda row: row.request_id):
        _print_request(word, list(attempts), whys)


def _show_list(db: Path, asked: Typed, *, as_json: bool) -> None:
    """Show the first of some words, and how many there are."""
    with reading(db) as conn:
        ids = [request_id for found in selected(conn, asked) for request_id in found.ids]
        rows = list(results_of(conn, ids if as_json else ids[:LAST]))
    if as_json:
        print_json([as_record(row) for row in rows])
        return
    print_table(
        ("word", "prompt", "state", "", "answer, or why there is none"),
        [
            (
                _in_short(row.key or row.word, 20),
                f"{row.prompt} version {row.version}",
                row.state,
                "stale" if row.stale else "",
                _in_short(row.text or row.reason, 36),
            )
            for row in rows
        ],
    )
    if len(ids) > LAST:
        tell(f"{len(ids) - LAST} more: crawler export FILE with the same options")


def _show_last(db: Path, *, as_json: bool) -> None:
    with reading(db) as conn:
        ended, total = last_ended(conn, LAST)
        now_ms = file_ms(conn)
    if as_json:
        print_json([as_record(row) for row in ended])
        return
    known = [
        (_in_short(row.word, 20), row.prompt, row.outcome, _time(row.finished_at_ms, now_ms))
        for row in ended
    ]
    taken = sum(max(map(len, column), default=0) + 2 for column in zip(_HEAD, *known, strict=True))
    room = shutil.get_terminal_size((100, 24)).columns - taken - 2
    said = [_in_short(row.said, min(max(room, len(_SAID)), MOST_SAID)) for row in ended]
    rows = [(*row, text) for row, text in zip(known, said, strict=True)]
    print_table((*_HEAD, _SAID), rows)
    tell(f"{len(ended)} of {count_of(total, 'word')}; all of them: crawler export")


def _time(at_ms: int, now_ms: int) -> str:
    """Return the time of the day, in UTC as elsewhere; of what is older the day."""
    day, _, time = moment(at_ms).partition("T")
    return f"{time.partition('.')[0]}Z" if now_ms - at_ms < _DAY_MS else day


def _in_short(said: str | None, most: int) -> str:
    """Return the beginning of a text, in one line."""
    line = " ".join((said or "")[: 4 * most].split())
    return line if len(line) <= most else f"{line[: most - 1]}…"


def _whys(conn: sqlite3.Connection, db: Path, request_ids: set[int]) -> dict[int, Why]:
    """Return why each of the requests is not being asked right now."""
    alive = may_be_alive(db, [run.id for run in live_runs(conn)])
    now_ms = file_ms(conn)
    return {
        request_id: why_not(conn, request_id, alive, Policy(), now_ms) for request_id in request_ids
    }


def _print_request(word: str, attempts: list[TimelineRow], whys: Mapping[int, Why]) -> None:
    last = attempts[-1]
    model = f"{last.provider}: {last.model}"
    print_line(
        f"{printable(word)} · {printable(last.prompt)} version {last.version}"
        f" ({printable(model)}) · {printable(last.state)}{_off_the_list(last)}"
    )
    for attempt in attempts:
        if attempt.number is not None:
            print_line(f"  {_attempt_line(attempt)}")
            if attempt.draft:
                print_line(f"     it said: {printable(_in_short(attempt.draft, SAID))}")
    if last.state in ("pending", "cancelled") and not _off_the_list(last):
        print_told(f"  {long(whys[last.request_id], last.prompt, last.limit)}")
    elif last.state == "failed" and not _off_the_list(last):
        print_told(f"  {_next_step(word, last)}")
    if last.text is not None:
        print_line()
        print_line(printable_lines(last.text))
    print_line()


def _next_step(word: str, failed: TimelineRow) -> str:
    """Return what a person can do about a word that has failed."""
    retry = f"crawler retry --prompt {quoted(failed.prompt)} {_as_argument(word)}, then crawler run"
    if failed.outcome == "blocked":
        return f"the model refused it, and may again: {retry}; or ask in other words: prompt add"
    if failed.outcome == "rejected":
        return f"it can't be asked as it is: mend the word, its list or the prompt; then {retry}"
    return f"it is not asked again by itself: {retry}"


def _as_argument(word: str) -> str:
    return f"-- {quoted(word)}" if word.startswith("-") else quoted(word)


def _off_the_list(row: TimelineRow) -> str:
    """Tell that a request does not stand any more, or that its word was removed."""
    if row.superseded:
        return " · asked again since"
    if row.removed_at_ms is not None:
        return f" · removed at {moment(row.removed_at_ms)}"
    return ""


def _attempt_line(attempt: TimelineRow) -> str:
    line = f"{attempt.number}. {moment(attempt.started_at_ms)}"
    if attempt.finished_at_ms is None or attempt.started_at_ms is None:
        return f"{line}  in flight"
    took_ms = attempt.finished_at_ms - attempt.started_at_ms
    took = f"{took_ms} ms" if took_ms < 10_000 else span(took_ms)  # noqa: PLR2004 - where ms stop to tell
    reason = f": {printable(attempt.reason)}" if attempt.reason else ""
    return f"{line}  {attempt.outcome} after {took}{reason}"
