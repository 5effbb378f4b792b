"""What must be true of a database, whatever has happened to its processes: two witnesses agree.

Rule: one witness is the file, the other the service that was called. Neither asks the other.
"""

import sqlite3
from collections import Counter
from pathlib import Path

from crawler.ledger.check import check
from tests.simulation.service import Key, Service

ENDED_BY_US = ("abandoned", "interrupted")


class Oracle:
    """Looks at a file again and again, and remembers what it has seen."""

    def __init__(self, path: Path, service: Service) -> None:
        self.broken: list[str] = []
        self.killed_in_flight = 0
        self.stopped: set[int] = set()
        """The runs that were killed, frozen or cancelled; only those lose what they had asked."""
        self.polite: set[int] = set()
        """The runs that were stopped politely: what they gave up took longer than they wait."""
        self._path = path
        self._service = service
        self._conn: sqlite3.Connection | None = None
        self._responses: dict[int, tuple[int, str]] = {}

    def killed(self, run_id: int) -> None:
        """Be told of a death, before anybody else hears of it."""
        self.stopped.add(run_id)
        (open_calls,) = self.ask(
            "SELECT count(*) FROM attempts WHERE run_id = ? AND finished_at_ms IS NULL", run_id
        )[0]
        self.killed_in_flight += open_calls

    def frozen_soon(self, run_id: int) -> None:
        """Be told of a run that will be frozen with any number of calls in flight."""
        self.stopped.add(run_id)
        ((most,),) = self.ask("SELECT max(concurrency) FROM limits")
        self.killed_in_flight += most

    def released(self) -> int:
        """Return how many leases came too late to be handed out."""
        ((calls,),) = self.ask(
            "SELECT count(*) FROM attempts WHERE reason LIKE 'its commit ended%'"
        )
        return int(calls)

    def look(self) -> None:
        """Compare what there is with what there was, and with what the service knows."""
        for finding in check(self._look_into()):
            if finding.broken:
                self.broken.append(f"{finding.name}: {finding.examples}")
        self._look_at_responses()
        self._look_at_results()
        self._look_at_calls()

    def look_at_end(self) -> None:
        """Require that all is done."""
        self.look()
        for word, state, outcome, failures, truncated, kind in self.ask(_ENDS):
            expected = {"!": "rejected", "?": "blocked"}.get(word[-1], "succeeded")
            worn_out = failures >= 20 or truncated >= 3 or kind == "too_large_for_quota"
            if state not in ("succeeded", "failed", "cancelled"):
                self.broken.append(f"{word} ends as {state}")
            elif state != "cancelled" and outcome != expected and not worn_out:
                self.broken.append(f"{word} ends as {state}, {outcome}")
        ((abandoned,),) = self.ask("SELECT count(*) FROM attempts WHERE outcome = 'abandoned'")
        if abandoned > self.killed_in_flight:
            self.broken.append(
                f"{abandoned} calls are abandoned, {self.killed_in_flight} were in flight"
            )

    def require_idle(self) -> None:
        """Require that no run is live and no call is open."""
        for what, sql in _OPEN.items():
            ((left,),) = self.ask(sql)
            if left:
                self.broken.append(f"{left} {what} left")

    def ask(self, sql: str, *values: object) -> list[tuple]:
        """Return the rows of a query."""
        return self._look_into().execute(sql, values).fetchall()

    def contents(self) -> list[tuple]:
        """Return all that the file says of requests and calls."""
        return [row for sql in _CONTENTS for row in self.ask(sql)]

    def _look_at_responses(self) -> None:
        now = {
            request_id: (number, text)
            for request_id, number, text in self.ask(
                "SELECT request_id, number, text FROM responses"
            )
        }
        for request_id, response in self._responses.items():
            if now.get(request_id) != response:
                self.broken.append(f"the response to {request_id} was {response}, and is not")
        for request_id, (number, text) in now.items():
            if self._service.paid.get((request_id, number)) != text:
                self.broken.append(f"the response to {request_id} is none to call {number}")
        self._responses = now

    def _look_at_results(self) -> None:
        """Require that each word on a list has one answer where it was ever answered."""
        lacking = self.ask(f"{_ANSWERED} EXCEPT SELECT word, prompt, 1 FROM results")
        self.broken += [f"{word} has no answer of {prompt}" for word, prompt, _ in lacking]
        twice = self.ask("SELECT word, prompt FROM results GROUP BY 1, 2 HAVING count(*) > 1")
        self.broken += [f"{word} has two answers of {prompt}" for word, prompt in twice]

    def _look_at_calls(self) -> None:
        calls: dict[Key, tuple[int, str | None, str | None]] = {
            (request_id, number): rest
            for request_id, number, *rest in self.ask(
                "SELECT request_id, number, run_id, outcome, reason FROM attempts"
            )
        }
        unknown = self._service.arrived.keys() - calls.keys()
        if unknown:
            self.broken.append(f"no attempt for the calls {sorted(unknown)}")
        for key in self._service.paid:
            run_id, outcome, reason = calls[key]
            timed_out = outcome == "transient" and (reason or "").startswith("no answer within")
            excused = timed_out or outcome is None or reason == "cut off"
            if outcome in ENDED_BY_US:
                gave_up = run_id in self.polite and key in self._service.slow
                excused = run_id in self.stopped or gave_up
            if outcome != "succeeded" and not excused:
                self.broken.append(f"call {key} was paid for and is {outcome} ({reason})")

    def _look_into(self) -> sqlite3.Connection:
        # Held open, so that no death is the last to close the file: the dead do not checkpoint.
        if self._conn is None:
            self._conn = sqlite3.connect(f"{self._path.as_uri()}?mode=ro", uri=True)
        return self._conn

    def close(self) -> None:
        """Look no more."""
        if self._conn is not None:
            self._conn.close()


_ANSWERED = """
SELECT text, name, max(superseded = 0 AND requests.removed_at_ms IS NULL) AS listed
FROM requests JOIN words ON words.id = word_id JOIN prompts ON prompts.id = prompt_id
GROUP BY word_id, name HAVING max(state = 'succeeded') = 1 AND listed = 1
"""
_ENDS = """
SELECT text, state, outcome, failures,
       (SELECT coalesce(sum(truncated), 0) FROM attempts WHERE request_id = requests.id),
       reason_code
FROM requests JOIN words ON words.id = word_id
LEFT JOIN attempts ON attempts.request_id = requests.id AND attempts.number = requests.attempts
"""
_OPEN = {
    "open calls are": "SELECT count(*) FROM attempts WHERE finished_at_ms IS NULL",
    "live runs are": "SELECT count(*) FROM runs WHERE ended_at_ms IS NULL",
}
_CONTENTS = (
    "SELECT id, state, attempts, failures FROM requests",
    "SELECT request_id, number, run_id, started_at_ms, finished_at_ms, outcome FROM attempts",
)


def most_common(broken: list[str]) -> list[tuple[str, int]]:
    """Return what is broken, without its numbers, and how often."""
    shapes = Counter("".join("N" if char.isdigit() else char for char in what) for what in broken)
    return shapes.most_common()
