"""What the tests share: a ledger in memory, and a clock that moves only when it is told to."""

import functools
import os
import random
import signal
import sqlite3
import tempfile
import threading
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings

from crawler.ledger import control, intake
from crawler.ledger import turn as turns
from crawler.ledger.budget import Allowance
from crawler.ledger.finish import end_run
from crawler.ledger.limits import put_limit
from crawler.ledger.runs import Scope, start_run
from crawler.policy import Policy
from crawler.protocol import Finish, Lease, Word
from crawler.states import Outcome
from crawler.storage.database import SETTINGS
from crawler.storage.upgrade import migrate
from tests.forked import Origin, origin
from tests.simulation.disk import fast_folder

# Programs that the tests start write as they do for users: what is left goes out at their end.
os.environ.pop("PYTHONUNBUFFERED", None)


settings.register_profile(
    "tests", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("long", deadline=None, max_examples=5_000)
settings.register_profile(
    "mutation",  # for scripts/mutate: thousands of runs, and none wants to know a smallest example
    deadline=None,
    derandomize=True,
    max_examples=30,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
PROFILE = os.environ.get("CRAWLER_TEST_PROFILE", "tests")
LONG = PROFILE == "long"
"""The long versions are wanted: scripts/test --long."""
DAY = int(os.environ.get("CRAWLER_TEST_DAY", "0"))
"""What is too dear to be tried each time has its turn by the day; the long versions try it all."""
settings.load_profile(PROFILE)


def pytest_configure() -> None:
    """Write into memory, and obey the signals of a person."""
    memory = fast_folder()
    if memory is not None:  # a quarter of the kernel's time went to the disk
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", memory)
    obey_signals()


def obey_signals() -> None:
    """Obey the signals that a job in the background was started without: its children inherit it.

    What a person has said with nohup is for the tests, and not for the programs that they start.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGTSTP):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(
                number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
            )


@functools.cache
def empty_ledger() -> sqlite3.Connection:
    """A database that is migrated once and copied for each test that wants one of its own."""
    conn = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    migrate(conn, 1_000_000_000_000)
    return conn


class Ledger:
    """A real database in memory, with a run, and time as a number."""

    def __init__(self, policy: Policy | None = None, *, concurrency: int = 10) -> None:
        self.now_ms = 1_000_000_000_000
        self.policy = policy or Policy()
        self.conn = sqlite3.connect(":memory:", isolation_level=None)
        empty_ledger().backup(self.conn)
        for setting in SETTINGS:
            self.conn.execute(setting)
        self.limit_id = put_limit(self.conn, "quota", concurrency)
        spec = intake.PromptSpec("p", "About {word}", "scripted", "m", {})
        self.prompt, _ = intake.put_prompt(self.conn, spec, self.limit_id, self.now_ms)
        self.random = random.Random(1)
        self.run_id = self.start_run()

    def start_run(self) -> int:
        return start_run(self.conn, 1, "host", "0", self.now_ms)

    def scope(self, run_id: int | None = None) -> Scope:
        return Scope(
            run_id=run_id or self.run_id,
            policy=self.policy,
            clock=lambda: self.now_ms,
            draw=self.random.randint,
        )

    def add(self, words: Iterable[str]) -> intake.Added:
        rows = [Word(word, {}) for word in words]
        return intake.add_words(self.conn, self.prompt.id, rows, self.now_ms)

    def turn(
        self,
        *finished: Finish,
        budget: int = 2**31,
        left: float | None = None,
        run_id: int | None = None,
    ) -> turns.Turn:
        return turns.turn(self.conn, self.scope(run_id), finished, Allowance(budget, left))

    def end_run(self, run_id: int, outcome: Outcome, reason: str, by: int | None = None) -> int:
        """End a run, by itself or by another one; return how many calls it had in flight."""
        return end_run(self.conn, self.scope(by or run_id), run_id, outcome, reason)

    def fix(self, per_minute: int) -> None:
        """Set a limit that is kept as it is set: all its starts at once, and no more."""
        control.set_per_minute(self.conn, "quota", per_minute, self.now_ms)
        control.set_adaptive(self.conn, "quota", self.now_ms, adaptive=False)

    def finish(self, lease: Lease, outcome: Outcome, **facts) -> Finish:
        if outcome is Outcome.SUCCEEDED:
            facts.setdefault("text", f"about {lease.word}")
        return Finish(lease.request_id, lease.number, self.now_ms, outcome, **facts)

    def states(self) -> dict[str, str]:
        rows = self.conn.execute(
            "SELECT text, state FROM requests JOIN words ON words.id = word_id"
        )
        return dict(rows)

    def row(self, sql: str, *values: object) -> tuple:
        return self.conn.execute(sql, values).fetchone()


def assert_no_thread_is_left():
    """A thread that outlives its store would keep the interpreter from ending."""
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join(5)
            assert not thread.is_alive()


@pytest.fixture
def ledger() -> Iterable[Ledger]:
    made = Ledger()
    yield made
    made.conn.close()


@pytest.fixture
def disk_path() -> Iterable[Path]:
    """Return a folder where syncs reach a disk; `tmp_path` is in memory, where there is room."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def forks() -> Iterable[Origin]:
    """A process that has made the program's imports, and forks the program."""
    with origin() as made:
        yield made
