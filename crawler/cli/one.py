"""One request now: asked alone, in this process, under the same limit as all others.

Rule: it is a request like any other. It is on record before it is asked, every attempt is, and
whoever ends this process early finds it pending.
"""

import asyncio
import sqlite3
from pathlib import Path

from crawler.cli.crawl import started
from crawler.cli.status import held_line
from crawler.cli.terminal import tell
from crawler.database import reading
from crawler.ending import Ending, RunOptions, raise_for
from crawler.errors import CrawlerError, Exit
from crawler.executor import OnText
from crawler.ledger.control import ask_for
from crawler.ledger.intake import Prompt, Word, add_words
from crawler.ledger.report import Result, Status, result
from crawler.logs import silent
from crawler.policy import Policy
from crawler.session import crawl_store
from crawler.store import open_store


def put_request(conn: sqlite3.Connection, prompt: Prompt, word: Word, now_ms: int) -> int:
    """Put a request on record and return its id.

    Raises CrawlerError, and nothing is on record, if no program can answer it.
    """
    if prompt.provider == "function":
        raise CrawlerError(
            f"prompt {prompt.name!r} can't be asked from here",
            "a Python function answers it, and only the program that has it can call it",
            f"crawler.crawl(…) in Python, or crawler prompt add {prompt.name} --provider NAME",
            Exit.USAGE,
        )
    add_words(conn, prompt.id, [word], now_ms)
    return ask_for(conn, prompt.id, word.text)


def answer_one(
    db: Path, prompt: Prompt, word: str, request_id: int, on_text: OnText | None = None
) -> Result:
    """Ask until there is an answer, and return it. Raises CrawlerError if there is none."""
    ending = asyncio.run(_ask(db, request_id, prompt.limit, on_text))
    raise_for(ending)
    found = stored_result(db, prompt, word)
    if found.text is None:
        raise _unanswered(found, ending)
    return found


async def _ask(db: Path, request_id: int, limit: str, on_text: OnText | None) -> Ending:
    async with open_store(db) as store:
        return await crawl_store(
            store,
            Policy(),
            RunOptions(request_id=request_id),
            silent(),
            on_status=_Waiting(limit).show,
            on_start=lambda scheduler: started(scheduler, tell),
            on_text=on_text,
        )


class _Waiting:
    """Tells, once each, what the request waits for."""

    def __init__(self, limit: str) -> None:
        self._limit = limit
        self._told: str | None = None

    def show(self, status: Status) -> None:
        for limit in status.limits:
            if limit.limit == self._limit and limit.held_by != self._told:
                self._told = limit.held_by
                held = held_line(limit, status.now_ms)
                if held:
                    tell(held)


def stored_result(db: Path, prompt: Prompt, word: str) -> Result:
    """Return what is on record of a request."""
    with reading(db) as conn:
        return result(conn, prompt.id, word)


def _unanswered(found: Result, ending: Ending) -> CrawlerError:
    if found.state == "pending":
        return CrawlerError(
            f"there is no answer about {found.word!r} yet",
            f"it was stopped ({ending.reason}); the request stays pending",
            "ask again, or crawler run",
            Exit.WORK_LEFT,
        )
    return CrawlerError(
        f"there is no answer about {found.word!r}",
        found.reason or f"the request was {found.state} meanwhile",
        "crawler show tells of every attempt; ask again to try anew",
        Exit.SOME_FAILED,
    )
