"""Killed at random moments, alone and in pairs, and what the server and the file say of it.

The moments are drawn by a seed that is printed; CRAWLER_TEST_SEED draws the same again, though not
what the processes make of them.
"""

import os
import random
import signal
import subprocess
from collections import Counter

from crawler.errors import Exit
from tests.conftest import LONG
from tests.crawls import CONCURRENCY, Crawl, assert_witnesses_agree, until
from tests.loopback import serving

KILLS, WORDS = (2_000, 10_000) if LONG else (24, 200)
LIMITED_KILLS = 200 if LONG else 8
PATIENT = ("--max-failures", "1000000")
"""Who is killed so often would else give up words that are in flight each time."""


class Fates:
    """Starts runs and ends them, one way or another; counts those that it has killed."""

    def __init__(self, crawl, name):
        seed = os.environ.get("CRAWLER_TEST_SEED") or random.randrange(10**6)
        print(f"{name}: CRAWLER_TEST_SEED={seed}")
        self.counts = Counter()
        self._chance = random.Random(f"{name} {seed}")
        self._crawl = crawl

    def live(self):
        """Have one life or two at once, to their end."""
        ways = (self._alone, self._pair, self._polite, self._hasty, self._from_the_start)
        self._chance.choices(ways, (8, 8, 3, 1, 1))[0]()
        self._crawl.forget_the_dead()
        self._crawl.assert_sound()

    def _alone(self):
        run = self._crawl.fork(*PATIENT)
        if self._chance.random() < 0.3:
            until(run, "run_started")
        self._kill(run, 0.25)

    def _pair(self):
        first, second = (self._crawl.fork(*PATIENT) for _ in range(2))
        self._kill(first, 0.25)
        self._kill(second, 0.25)

    def _polite(self):
        """It is told to stop, and killed before or while it does."""
        run = self._crawl.fork(*PATIENT)
        until(run, "run_started")
        self._still_lives(run, 0.1)
        run.send_signal(self._chance.choice((signal.SIGTERM, signal.SIGINT, signal.SIGHUP)))
        self._kill(run, 0.15)

    def _hasty(self):
        """It is told twice."""
        run = self._crawl.fork(*PATIENT)
        until(run, "run_started")
        while run.poll() is None:
            run.send_signal(signal.SIGINT)
            self._still_lives(run, 0.4)
        assert run.returncode == Exit.WORK_LEFT
        self.counts["told twice"] += 1

    def _from_the_start(self):
        """Killed while it still imports what it needs."""
        self._kill(self._crawl.start(*PATIENT), 0.8)

    def _kill(self, run, within_s):
        if self._still_lives(run, within_s):
            os.killpg(run.pid, signal.SIGKILL)
        code = run.wait(30)
        assert code in (-signal.SIGKILL, Exit.WORK_LEFT, Exit.DONE), run.said
        self.counts["killed" if code == -signal.SIGKILL else "ended"] += 1

    def _still_lives(self, run, within_s):
        """Let it live for a while."""
        try:
            run.wait(self._chance.uniform(0, within_s))
        except subprocess.TimeoutExpired:
            return True
        return False


def test_killed_again_and_again_it_loses_nothing(disk_path, forks):
    words = [f"word{n}" for n in range(WORDS)]
    chance = random.Random(1)
    with (
        serving(lambda: chance.uniform(0.02, 0.2)) as witness,
        Crawl(disk_path, witness.url, words, forks) as crawl,
    ):
        fates = Fates(crawl, "kills")
        while fates.counts["killed"] < KILLS:
            fates.live()
        left = crawl.ask("SELECT pending + leased FROM tallies")
        assert crawl.fork(*PATIENT).wait(600) == Exit.DONE
        repeats = assert_witnesses_agree(crawl, witness, words)

    ((abandoned,),) = crawl.ask("SELECT count(*) FROM attempts WHERE outcome = 'abandoned'")
    print(f"{dict(fates.counts)}; {left[0][0]} left then; {abandoned} abandoned, {repeats} repeats")
    assert left > [(0,)], "there was work at each of the kills"
    assert KILLS / 10 < repeats <= abandoned <= (KILLS + fates.counts["told twice"]) * CONCURRENCY


def test_no_kill_breaks_a_limit(disk_path, forks):
    per_minute = 60
    words = [f"word{n}" for n in range(2_000)]
    with (
        serving(0.02) as witness,
        Crawl(disk_path, witness.url, words, forks) as crawl,
    ):
        crawl.call("limit", "openai", "--per-minute", str(per_minute), "--fixed")
        fates = Fates(crawl, "limited")
        while fates.counts["killed"] < LIMITED_KILLS:
            fates.live()
        assert crawl.fork("--deadline", "2s").wait(30) == Exit.WORK_LEFT
        crawl.assert_sound()
    assert witness.most_within(60) <= per_minute
    # A call that was on record and did not leave any more has used its place in the window.
    ((started,),) = crawl.ask("SELECT count(*) FROM attempts")
    assert started >= per_minute - CONCURRENCY
    assert witness.most_open <= CONCURRENCY
