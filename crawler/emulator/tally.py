"""Counts what an emulator does, and writes a line of its log for each request.

Rule: a line is in the file, by one write of the system, before the client can see what it says; so
the log of an emulator that is killed lacks nothing that a client knows.
"""

import json
import os
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

_MINUTE_S = 60


class Line(NamedTuple):
    """A line of the log: what came, when (Unix time), and what was decided about it.

    ``nth`` counts the requests for the word, without those that a quota or an outage refused;
    ``why`` is the quota that refused it; ``in_flight`` includes this one if it is let in.
    """

    time: float
    method: str
    word: str
    nth: int
    code: str
    fault: str | None
    why: str | None
    tokens_in: int
    tokens_out: int
    in_flight: int


class Tally:
    """Counts of one emulator.

    ``codes`` are counted when they are decided; ``answered`` has the words whose answer has left,
    and how often: who gave up in the meantime was not answered.
    """

    def __init__(self, log: Path | None) -> None:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
        self._file = None if log is None else os.open(log, flags, 0o600)
        self._recent: deque[tuple[int, int]] = deque()  # second, requests
        self.codes: Counter[str] = Counter()
        self.answered: Counter[str] = Counter()
        self.in_flight = 0
        self.most_in_flight = 0

    def close(self) -> None:
        """Close the log."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def decided(self, line: Line) -> None:
        """Count a request and write its line."""
        self.codes[line.code] += 1
        second = int(line.time)
        count = self._recent.pop()[1] if self._recent and self._recent[-1][0] == second else 0
        self._recent.append((second, count + 1))
        if self._recent[0][0] <= second - _MINUTE_S:
            self._recent.popleft()
        if self._file is not None:
            os.write(self._file, f"{json.dumps(line._asdict())}\n".encode())

    @contextmanager
    def carrying_out(self) -> Iterator[None]:
        """Count a call as in flight until the end of the block."""
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            yield
        finally:
            self.in_flight -= 1

    def last_minute(self, now_s: float) -> int:
        """Return how many requests came in the last minute, to a second."""
        return sum(count for second, count in self._recent if second > now_s - _MINUTE_S)

    def summary(self) -> Mapping[str, Any]:
        """Return all counts, as they are printed at the end."""
        return {
            "received": self.codes.total(),
            "codes": dict(self.codes.most_common()),
            "most_in_flight": self.most_in_flight,
            "answered_more_than_once": {w: n for w, n in self.answered.items() if n > 1},
        }
