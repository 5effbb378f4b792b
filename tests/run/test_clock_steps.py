"""The wall clock is set, between runs and during one: no limit is broken, nothing stands still.

The clock is the one that libfaketime shows to the program; the server's is the real one.
"""

from pathlib import Path

import pytest

from crawler.errors import Exit
from tests.conftest import LONG
from tests.crawls import CONCURRENCY, Crawl, assert_witnesses_agree, until
from tests.loopback import serving

PLACES = ("/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/local/lib", "/usr/lib")
LIBRARY = next(
    (path for place in PLACES if (path := Path(place) / "faketime/libfaketime.so.1").exists()), None
)
STEPS_H = (1, -1, 24, -24, *((720, -720, 0.25) if LONG else ()))

pytestmark = pytest.mark.skipif(LIBRARY is None, reason="libfaketime is not installed")


class WallClock:
    """A wall clock that can be set while programs look at it."""

    def __init__(self, folder):
        self._file = folder / "clock"
        self.env = {
            "LD_PRELOAD": str(LIBRARY),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            # Else waits with a time-out on the monotonic clock are now and then seconds too long.
            "FAKETIME_FORCE_MONOTONIC_FIX": "0",
        }
        self.set(0)

    def set(self, hours):
        """Let it go wrong by that much, from now on."""
        new = self._file.with_suffix(".new")
        new.write_text(f"{hours * 3600:+d}" if hours == int(hours) else f"{hours * 3600:+f}")
        new.replace(self._file)


@pytest.mark.parametrize("during", [False, True], ids=["between runs", "during a run"])
def test_a_step_opens_no_window(tmp_path, forks, during):
    per_minute = 20
    words = [f"word{n}" for n in range(200)]
    clock = WallClock(tmp_path)
    with serving() as witness, Crawl(tmp_path, witness.url, words, forks) as crawl:
        crawl.call("limit", "openai", "--per-minute", str(per_minute), "--fixed")
        for hours in (0, *(STEPS_H if LONG else STEPS_H[::3])):
            if not during:
                clock.set(hours)
            run = crawl.start("--deadline", "1s", env=clock.env)
            until(run, "run_started")
            clock.set(hours)
            assert run.wait(30) == Exit.WORK_LEFT
            crawl.assert_sound()
    # On a busy machine a start is put on record anew, and its old place in the window stays taken.
    assert per_minute - CONCURRENCY <= witness.words.total() <= per_minute
    assert_durations_are_real(crawl)


def test_a_step_stops_nothing(tmp_path, forks):
    words = [f"word{n}" for n in range((len(STEPS_H) + 1) * 2 * CONCURRENCY)]
    clock = WallClock(tmp_path)
    with serving(latency_s=0.2) as witness, Crawl(tmp_path, witness.url, words, forks) as crawl:
        run = crawl.start(env=clock.env)
        for number, hours in enumerate(STEPS_H, 1):
            until_asked(witness, number * 2 * CONCURRENCY)
            clock.set(hours)
        assert run.wait(30) == Exit.DONE
        assert assert_witnesses_agree(crawl, witness, words) == 0
    assert_durations_are_real(crawl)


def until_asked(witness, times):
    """Wait until the server has been asked so often."""
    while witness.words.total() < times:
        witness.asked.clear()
        assert witness.words.total() >= times or witness.asked.wait(20)


def assert_durations_are_real(crawl):
    """No call has lasted less than no time, or as long as a step."""
    ((shortest, longest),) = crawl.ask(
        "SELECT min(finished_at_ms - started_at_ms), max(finished_at_ms - started_at_ms)"
        " FROM attempts"
    )
    assert 0 <= shortest <= longest < 30_000
