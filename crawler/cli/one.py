"""One request now: asked alone, in this process, under the same limit as all others.

Rule: it is a request like any other. It is on record before it is asked, every attempt is, and
whoever ends this process early finds it pending.
"""

import asyncio
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from crawler.cli.crawl import freeze_imports, install_signal_handlers, tell_warning
from crawler.cli.terminal import tell
from crawler.cli.why import held_line, is_soon
from crawler.errors import CrawlerError, Exit, quoted
from crawler.ledger.control import ask_for
from crawler.ledger.intake import Prompt, add_words
from crawler.ledger.results import Result, result
from crawler.ledger.runs import Selection
from crawler.ledger.status import Status
from crawler.logs import heard
from crawler.policy import Policy
from crawler.protocol import Call, Word
from crawler.run.ending import Ending, RunOptions, raise_for
from crawler.run.loop import Loop
from crawler.run.session import crawl_store
from crawler.states import Outcome
from crawler.storage.database import reading
from crawler.storage.store import open_store


class Asked(NamedTuple):
    """How a person speaks of a request."""

    what: str
    """What is asked for."""
    again: str
    """The command that asks for it again."""


class Reader(Protocol):
    """Who reads an answer along as it comes."""

    def read(self, call: Call, text: str) -> None:
        """Read a piece of a call's answer."""

    def end_line(self) -> None:
        """Let others have a line of their own."""


def put_request(conn: sqlite3.Connection, prompt: Prompt, word: Word, now_ms: int) -> int:
    """Put a request on record and return its id.

    Raises CrawlerError, and nothing is on record, if no program can answer it.
    """
    if prompt.provider == "function":
        raise CrawlerError(
            f"prompt {prompt.name!r} can't be asked from here",
            "a Python function answers it, and only the program that has it can call it",
            "crawler.crawl(…) in Python, or"
            f" crawler prompt add {quoted(prompt.name)} --provider NAME",
            Exit.USAGE,
        )
    add_words(conn, prompt.id, [word], now_ms, typed=True)
    return ask_for(conn, prompt.id, word.identity)


def answer_one(
    db: Path,
    prompt: Prompt,
    word: str,
    request_id: int,
    asked: Asked,
    reader: Reader | None = None,
) -> Result:
    """Ask until there is an answer, and return it. Raises CrawlerError if there is none."""
    ending = asyncio.run(_ask(db, request_id, prompt.limit, asked, reader))
    raise_for(ending, asked.again)
    found = stored_result(db, prompt, word)
    if found.text is None:
        raise _unanswered(found, ending, asked)
    return found


async def _ask(
    db: Path, request_id: int, limit: str, asked: Asked, reader: Reader | None
) -> Ending:
    aside = _Aside(limit, reader)

    def on_start(run: Loop) -> None:
        freeze_imports()
        install_signal_handlers(run, aside.say, again=asked.again)

    async with open_store(db) as store:
        return await crawl_store(
            store,
            Policy(),
            RunOptions(selection=Selection(request_ids=(request_id,))),
            heard(aside.hear),
            on_status=aside.show,
            on_start=on_start,
            on_text=aside.read if reader is not None else None,
        )


class _Aside:
    """Tells, on lines of its own, why an attempt has failed and what the request waits for."""

    def __init__(self, limit: str, reader: Reader | None) -> None:
        self._limit = limit
        self._reader = reader
        self._is_read = False  # a piece of an attempt that has not failed has come
        self._told: str | None = None

    def read(self, call: Call, text: str) -> None:
        self._is_read = True
        if self._reader is not None:
            self._reader.read(call, text)

    def hear(self, event: str, fields: Mapping[str, Any]) -> None:
        tell_warning(self.say, event, fields)
        if event != "attempt_failed":
            return
        self._is_read = False
        self._told = None
        # What closes a gate is told with the wait for it, and what is final in the end.
        if fields["outcome"] in (Outcome.TRANSIENT, Outcome.NO_ANSWER):
            self.say(f"attempt {fields['number']} failed: {fields['reason']}")

    def show(self, status: Status) -> None:
        for limit in status.limits:
            if limit.limit != self._limit or self._is_read or is_soon(limit, status.now_ms):
                continue
            held = held_line(limit, status.now_ms)
            if held and limit.held_by != self._told:
                self.say(held)
            self._told = limit.held_by

    def say(self, text: str) -> None:
        if self._reader is not None:
            self._reader.end_line()
        tell(text)


def stored_result(db: Path, prompt: Prompt, word: str) -> Result:
    """Return what is on record of a request."""
    with reading(db) as conn:
        return result(conn, prompt.id, word)


def _unanswered(found: Result, ending: Ending, asked: Asked) -> CrawlerError:
    if found.state == "pending":
        return CrawlerError(
            f"there is no {asked.what} yet",
            f"it was stopped ({ending.reason})",
            asked.again,
            Exit.WORK_LEFT,
        )
    return CrawlerError(
        f"there is no {asked.what}",
        found.reason or f"the request was {found.state} meanwhile",
        f"{asked.again} asks anew; crawler show {quoted(found.word)} tells of every attempt",
        Exit.SOME_FAILED,
    )
