"""A run that is stopped and does not end: another takes over, its late answers are refused."""

import asyncio
import fcntl
import itertools
import os
import random
import signal
import sys
import time
from pathlib import Path

from crawler.errors import Exit
from crawler.ledger.runs import Scope, live_runs, start_run
from crawler.logs import silent
from crawler.policy import Policy
from crawler.run.recovery import TICK_MS, Heartbeats, recover
from crawler.storage.locks import RunLock
from crawler.storage.store import open_store
from tests.crawls import CONCURRENCY, Crawl, assert_witnesses_agree, told_by, until
from tests.loopback import serving

# The program has no option for it: nobody should have to choose. A run is given up after three
# beats of its heart at the least, so that beats quicker here.
IMPATIENT = """
import os, sys
from pathlib import Path
from crawler.cli.crawl import crawl
from crawler.ledger import runs
from crawler.run import recovery
from crawler.run.ending import RunOptions
from crawler.errors import CrawlerError
from crawler.policy import Policy
runs.HEARTBEAT_MS = recovery.HEARTBEAT_MS = 1_000
try:
    policy = Policy(call_timeout_ms=5_000, lost_after_ms=7_001)
    sys.exit(crawl(Path(os.environ["CRAWLER_DB"]), policy, RunOptions()))
except CrawlerError as error:
    print(error, file=sys.stderr)
    sys.exit(error.exit_code)
"""


def test_a_run_that_is_stopped_for_good_is_given_up_and_its_late_answers_are_refused(
    tmp_path, forks
):
    words = [f"word{n}" for n in range(3 * CONCURRENCY)]
    with serving(latency_s=1.5) as witness, Crawl(tmp_path, witness.url, words, forks) as crawl:
        program = [sys.executable, "-c", IMPATIENT]
        frozen = crawl.start(program=program)
        until(frozen, "run_started")
        # All of its calls: one that had not left yet would leave when it goes on, beside those of
        # whoever has taken its place.
        until_true(lambda: witness.words.total() == CONCURRENCY)
        freeze(frozen, tmp_path / "c.db-lock")

        witness.asked.clear()
        other = crawl.start(program=program)
        until(other, "attempts_abandoned")
        assert witness.asked.wait(20)
        frozen.send_signal(signal.SIGCONT)
        assert frozen.wait(10) == Exit.WORK_LEFT
        assert told_by(frozen).startswith(
            "error: another run has declared this run dead; what is left"
        )
        crawl.assert_sound()
        assert other.wait(30) == Exit.DONE
        assert 0 < assert_witnesses_agree(crawl, witness, words) <= CONCURRENCY

    runs = crawl.ask("SELECT reason, late_answers > 0 FROM runs ORDER BY id")
    assert runs == [("killed", True), ("finished", False)]
    assert any("late_answers_refused" in line for line in frozen.said)


def freeze(process, write_lock):
    """Stop a process while it does not write: else nobody else can, whatever they think of it."""
    with write_lock.open("r+b") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        process.send_signal(signal.SIGSTOP)
        until_stopped(process)


def until_stopped(process):
    """Wait until a process has stopped, as the system has it."""
    status = Path(f"/proc/{process.pid}/stat")
    until_true(lambda: status.read_text().rpartition(")")[2].split()[0] == "T")


def until_true(condition):
    """Wait for a condition, ten seconds at the most."""
    give_up_at_s = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < give_up_at_s
        os.sched_yield()


def test_a_heart_stands_still_for_as_many_of_our_own_looks_as_found_it_so():
    watch = Heartbeats()
    assert [watch.still_ms(1, 7) for _ in range(4)] == [0, TICK_MS, 2 * TICK_MS, 3 * TICK_MS]
    assert watch.still_ms(2, 7) == 0
    assert [watch.still_ms(1, 8), watch.still_ms(1, 8)] == [0, TICK_MS]


def test_whoever_slept_declares_nobody_dead_for_it(tmp_path):
    """A lid closed for a day, or an observer that was stopped for one: that is a single look."""
    policy = Policy(call_timeout_ms=10_000, lost_after_ms=20_000)
    database = tmp_path / "c.db"

    async def ended_after(looks):
        """Return whether a run that lives and does nothing has been given up, by look."""
        async with open_store(database) as store:
            other, own = [await store.run(start_run, 1, "host", "0", 1_000) for _ in range(2)]
            lock = RunLock(database, other)
            clock = itertools.count(86_400_000, 86_400_000)
            scope = Scope(run_id=own, policy=policy, clock=clock.__next__, draw=random.randint)
            watch, ended = Heartbeats(), []
            for _ in range(looks):
                await recover(store, scope, silent(), watch)
                ended.append(other not in [run.id for run in await store.run(live_runs)])
            lock.close()
            return ended

    assert asyncio.run(ended_after(22)) == [False] * 21 + [True]


def test_a_run_that_is_suspended_is_never_so_with_the_write_lock_in_its_hand(tmp_path, forks):
    words = [f"word{n}" for n in range(4_000)]
    with serving(0.001) as witness, Crawl(tmp_path, witness.url, words, forks) as crawl:
        run = crawl.fork()
        with (tmp_path / "c.db-lock").open("r+b") as lock:
            for _ in range(20):
                witness.asked.clear()
                assert witness.asked.wait(20)
                run.send_signal(signal.SIGTSTP)  # as Ctrl-Z does
                until_stopped(run)
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                fcntl.flock(lock, fcntl.LOCK_UN)
                run.send_signal(signal.SIGCONT)
        crawl.assert_sound()
        os.killpg(run.pid, signal.SIGTERM)
        assert run.wait(30) == Exit.WORK_LEFT
        assert crawl.ask("SELECT count(*) FROM attempts WHERE outcome <> 'succeeded'") == [(0,)]


def test_a_run_that_nobody_could_let_go_on_does_not_stop_at_ctrl_z(tmp_path, forks):
    words = [f"word{n}" for n in range(400)]
    with serving(0.02) as witness, Crawl(tmp_path, witness.url, words, forks) as crawl:
        run = crawl.start()  # in a session of its own: no shell has it for a job
        assert witness.asked.wait(20)
        run.send_signal(signal.SIGTSTP)
        witness.asked.clear()
        assert witness.asked.wait(20)
        run.send_signal(signal.SIGTERM)
        assert run.wait(20) == Exit.WORK_LEFT
        crawl.assert_sound()
