"""`remove` and `retry`: words off the list of a prompt, and words that are to be asked again.

Rule: nothing is deleted, and the last line says how to undo it, or how to go on.
"""

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import click

from crawler.cli.options import WordsOrFiles, changed_database_option
from crawler.cli.selecting import (
    NAMED,
    Typed,
    changed_in_parts,
    command_for,
    selector_options,
    typed,
)
from crawler.cli.terminal import printable, tell
from crawler.clock import wall_ms
from crawler.errors import count_of, quoted
from crawler.ledger.intake import Prompt
from crawler.ledger.selectors import Selectors, names
from crawler.ledger.standing import Removed, ask_again, removed_at
from crawler.ledger.standing import remove as take_off
from crawler.states import RequestState
from crawler.storage.database import Writer, require_database, writing


class _Gone(NamedTuple):
    prompt: str
    words: Sequence[str]
    done: Removed


class _Again(NamedTuple):
    prompt: str
    states: Sequence[RequestState]


@click.command(
    cls=WordsOrFiles,
    epilog="""\b
Examples:
  crawler remove gost thier
  crawler remove @typos.txt --prompt define
  crawler remove --state pending        all that has not been asked""",
)
@click.argument("words", nargs=-1, metavar="WORD|@FILE|-...")
@selector_options
@changed_database_option
def remove(words: Sequence[str], db: Path, **said: Any) -> None:
    """Take words off the list of a prompt: not asked, not shown, not exported, not counted.

    Their answers stay in the file. A list that is added later does not bring them back; to type
    them does.
    """
    asked = typed(words, **said)
    if asked.is_empty:
        raise click.UsageError("say which words: WORD…, @FILE, --failed, --state pending")
    require_database(db)
    with writing(db, wall_ms()) as writer:
        now_ms = wall_ms()
        gone = _remove(db, writer, asked, now_ms)
    for prompt, removed, done in gone:
        undo = command_for("crawler add", removed, f"--prompt {quoted(prompt)}")
        if len(removed) > NAMED:
            which = quoted(removed_at(prompt, now_ms))
            undo = f"crawler add, with each by its name; which they are: crawler sql {which}"
        tell(f"{count_of(done.requests, 'word')} removed from {printable(prompt)}; undo: {undo}")
        if done.in_flight:
            tell(f"{done.in_flight} in flight: an answer is kept, but it is not tried again")
    if not gone:
        tell("no word was removed: none is selected")


def _remove(db: Path, writer: Writer, asked: Typed, now_ms: int) -> list[_Gone]:
    def off(conn: sqlite3.Connection, _: Prompt, ids: list[int]) -> Removed:
        return take_off(conn, ids, now_ms)

    gone = []
    for (prompt, requests), parts in changed_in_parts(db, writer, asked, off):
        if requests:
            named = writer.run(names, [request.id for request in requests[: NAMED + 1]])
            gone.append(_Gone(prompt.name, named, Removed(*map(sum, zip(*parts, strict=True)))))
    return gone


@click.command(
    cls=WordsOrFiles,
    epilog="""\b
Examples:
  crawler retry                 everything that has failed
  crawler retry abrogate        one word, also one that has an answer
  crawler retry --stale         what an older version of its prompt has answered
  crawler retry --cancelled     what was cancelled""",
)
@click.argument("words", nargs=-1, metavar="[WORD|@FILE|-]...")
@selector_options
@click.option("--cancelled", is_flag=True, help="What was cancelled: --state cancelled.")
@changed_database_option
def retry(words: Sequence[str], db: Path, *, cancelled: bool, **said: Any) -> None:
    """Let words wait again, as they are asked now; without selectors all that have failed.

    An answer that is there counts until the new one is. Then: crawler run.
    """
    asked = typed(words, **said)
    if cancelled:
        states = (*asked.selectors.states, RequestState.CANCELLED)
        asked = asked._replace(selectors=asked.selectors._replace(states=states))
    if asked.selectors._replace(first=None) == Selectors():
        of_failed = asked.selectors._replace(states=(RequestState.FAILED,))
        asked = asked._replace(selectors=of_failed)
    require_database(db)
    with writing(db, wall_ms()) as writer:
        done = changed_in_parts(db, writer, asked, _ask_again)
    again = [_Again(of.prompt.name, [one.state for one in of.requests]) for of, _ in done]
    _report(asked, again)


def _ask_again(conn: sqlite3.Connection, prompt: Prompt, ids: list[int]) -> int:
    return ask_again(conn, prompt.id, ids)


def _report(asked: Typed, again: Sequence[_Again]) -> None:
    counts = {
        state: sum(found is state for one in again for found in one.states)
        for state in RequestState
    }
    answered = counts[RequestState.SUCCEEDED]
    named = [state for state in asked.selectors.states if state in _PENDING_AGAIN]
    for state in _PENDING_AGAIN:
        if counts[state] or (state in named and not answered):
            is_are = "request is" if counts[state] == 1 else "requests are"
            tell(f"{counts[state]} {state} {is_are} pending again")
    if answered:
        one = answered == 1
        tell(
            f"{answered} {'answer is' if one else 'answers are'} asked again; the old"
            f" {'one counts' if one else 'ones count'} until then. Next: crawler run"
        )
    waiting = counts[RequestState.PENDING] + counts[RequestState.LEASED]
    if waiting:
        tell(f"{waiting} {'waits' if waiting == 1 else 'wait'} already")
    if not any(counts.values()) and not named:
        tell("nothing is asked again: none is selected")


_PENDING_AGAIN = (RequestState.FAILED, RequestState.CANCELLED)
