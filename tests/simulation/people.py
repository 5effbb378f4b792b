"""What people do to a file while it is crawled, by commands of their own.

Rule: a command is a transaction of another process. What may be done is a method that DEEDS names.
"""

import random
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

from crawler.ledger import control, intake, items, reviews, standing
from crawler.ledger.clocks import file_ms
from crawler.ledger.limits import put_limit
from crawler.ledger.selectors import Selectors, chosen
from crawler.protocol import Word
from crawler.states import RequestState
from crawler.storage.database import writing
from tests.simulation.machine import Machine
from tests.simulation.service import Service

DEEDS = {
    "add": 2,
    "pause": 1,
    "resume": 1,
    "limit": 2,
    "cancel_word": 1,
    "retry": 1,
    "remove": 1,
    "type": 1,
    "ask_again": 1,
    "edit": 1,
    "correct": 1,
    "mark": 1,
}
"""And how often."""
LIMITS = (None, 12, 20, 30, 30)


class People:
    """Whoever owns the file."""

    def __init__(self, path: Path, machine: Machine, service: Service, chance: random.Random):
        self._path, self._machine = path, machine
        self._service, self._chance = service, chance
        self._prompts: list[int] = []
        self._words = 0

    def do(self, deed: str) -> None:
        """Run a command; ``make`` is the first."""
        transaction: Callable[[sqlite3.Connection], Any] = getattr(self, f"_{deed}")
        with writing(self._path, self._machine.wall_ms()) as writer:
            writer.run(transaction)

    def _make(self, conn: sqlite3.Connection) -> None:
        limit_id = put_limit(conn, "quota", 1)
        for name in ("p", "q")[: self._chance.choice([1, 1, 2])]:
            spec = intake.PromptSpec(name, "About {word}", "scripted", "m", {})
            prompt, _ = intake.put_prompt(conn, spec, limit_id, self._machine.wall_ms())
            self._prompts.append(prompt.id)
        self._limit(conn)
        self._add(conn, self._chance.choice([5, 20, 40]))

    def _add(self, conn: sqlite3.Connection, count: int = 3) -> None:
        marks = self._chance.choices(["", "!", "?"], [20, 1, 1], k=count)
        words = [f"word{self._words + n}{mark}" for n, mark in enumerate(marks)]
        self._words += count
        rows = [Word(word, {}) for word in words]
        prompt_id = self._chance.choice(self._prompts)
        intake.add_words(conn, prompt_id, rows, self._machine.wall_ms())

    def _add_many(self, conn: sqlite3.Connection) -> None:
        self._add(conn, 60)

    def _limit(self, conn: sqlite3.Connection) -> None:
        concurrency, per_minute = self._chance.choice([1, 3, 5]), self._chance.choice(LIMITS)
        adaptive = self._chance.random() < 0.7
        control.set_concurrency(conn, "quota", concurrency)
        control.set_per_minute(conn, "quota", per_minute, file_ms(conn))
        control.set_adaptive(conn, "quota", file_ms(conn), adaptive=adaptive)
        self._service.expect(concurrency, per_minute)

    def _pause(self, conn: sqlite3.Connection) -> None:
        now_ms = file_ms(conn)
        control.pause(conn, None, now_ms, now_ms + 10_000)

    def _resume(self, conn: sqlite3.Connection) -> None:
        control.resume(conn, None, file_ms(conn))

    def _cancel_word(self, conn: sqlite3.Connection) -> None:
        word = self._chance.randrange(self._words)
        (word_id,) = conn.execute("SELECT id FROM words WHERE id = ?", (word + 1,)).fetchone()
        control.cancel(conn, self._prompts, [word_id])

    def _retry(self, conn: sqlite3.Connection) -> None:
        states = [self._chance.choice([RequestState.FAILED, RequestState.CANCELLED])]
        control.retry(conn, self._prompts, None, states)

    def _remove(self, conn: sqlite3.Connection) -> None:
        standing.remove(conn, self._some(conn)[1], self._machine.wall_ms())

    def _ask_again(self, conn: sqlite3.Connection) -> None:
        standing.ask_again(conn, *self._some(conn))

    def _type(self, conn: sqlite3.Connection) -> None:
        prompt_id = self._chance.choice(self._prompts)
        words = conn.execute("SELECT text FROM words WHERE id % 3 = 0").fetchall()
        standing.bring_back(conn, prompt_id, [word for (word,) in words])

    def _edit(self, conn: sqlite3.Connection) -> None:
        nth = self._chance.randrange(len(self._prompts))
        template = self._chance.choice(["About {word}", "On {word}", "Of {word}[[ {level}]]"])
        spec = intake.PromptSpec("pq"[nth], template, "scripted", "m", {})
        limit_id = put_limit(conn, "quota", 1)
        self._prompts[nth] = intake.put_prompt(conn, spec, limit_id, self._machine.wall_ms())[0].id

    def _correct(self, conn: sqlite3.Connection) -> None:
        words = conn.execute("SELECT text FROM words WHERE id % 3 = 1").fetchall()
        fields = {"level": self._chance.choice(["A", "B", ""])}
        rows = [Word(word, fields) for (word,) in words]
        items.revised(conn, rows, self._machine.wall_ms())

    def _mark(self, conn: sqlite3.Connection) -> None:
        mark = self._chance.choice(["good", "bad", "none"])
        reviews.review(conn, self._some(conn)[1], mark, None, "me", self._machine.wall_ms())

    def _some(self, conn: sqlite3.Connection) -> tuple[int, list[int]]:
        """Return a prompt and some of the requests on its list."""
        prompt_id = self._chance.choice(self._prompts)
        listed = chosen(conn, prompt_id, Selectors())
        start = self._chance.randrange(max(1, len(listed)))
        return prompt_id, [request.id for request in listed[start : start + 3]]
