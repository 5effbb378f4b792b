"""The scheduler in its loop: it hands out, drains, ends for the right reason, and takes over."""

import asyncio
import dataclasses
import itertools
import os
import sqlite3
import threading
import time
from contextlib import asynccontextmanager

import pytest

from crawler.clock import wall_ms
from crawler.errors import CrawlerError, Exit
from crawler.ledger import control, intake, turn
from crawler.ledger.budget import ANYTHING, Allowance
from crawler.ledger.check import check
from crawler.ledger.limits import put_limit
from crawler.ledger.runs import Scope, Selection, live_runs, start_run
from crawler.ledger.status import status
from crawler.logs import silent
from crawler.policy import Policy
from crawler.protocol import Answer, ProviderError, Word
from crawler.quota.state import WINDOW_MS
from crawler.run.ending import Reason, RunOptions, raise_for
from crawler.run.session import crawl_store
from crawler.states import Outcome
from crawler.storage.locks import RunLock, run_is_alive
from crawler.storage.store import open_store
from tests.conftest import assert_no_thread_is_left

QUICK = Policy(backoff_base_ms=1, backoff_cap_ms=1)
HURRIED = Policy(guard_ms=10**9, patience_ms=10**9)
"""For a clock that hurries: a hop to the database takes seconds on it, and a nap minutes."""


def hurrying():
    """Return a clock on which a second lasts a millisecond."""
    began_s = time.monotonic()
    return lambda: 10**12 + int((time.monotonic() - began_s) * 10**6)


class Asked:
    """A provider that answers as it is told and remembers what it was asked."""

    def __init__(self, answer=None):
        self.words = []
        self.in_flight = self.most_in_flight = 0
        self._answer = answer

    async def generate(self, call):
        self.words.append(call.word)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            await asyncio.sleep(0)
            return await self._answer(call) if self._answer else Answer(call.prompt)
        finally:
            self.in_flight -= 1


def fails(outcome, **facts):
    async def answer(call):
        raise ProviderError(outcome, "so it is", **facts)

    return answer


def put(conn, words, concurrency=4, name="p", template="About {word}"):
    limit_id = put_limit(conn, "quota", concurrency)
    spec = intake.PromptSpec(name, template, "scripted", "m", {})
    prompt, _ = intake.put_prompt(conn, spec, limit_id, 1)
    intake.add_words(conn, prompt.id, [Word(word, {}) for word in words], 1)


@asynccontextmanager
async def a_store(words, path=None, **more):
    async with open_store(path) as store:
        await store.run(put, words, **more)
        yield store
        findings = await store.run(check)
        assert [finding for finding in findings if finding.broken] == []


async def crawled(
    store, provider, policy=QUICK, *, clock=None, on_start=None, on_status=None, **go
):
    given = {("scripted", "m"): provider}
    return await crawl_store(
        store,
        policy,
        RunOptions(**go),
        silent(),
        given=given,
        clock=clock,
        on_start=on_start,
        on_status=on_status,
    )


def counts(conn):
    return dict(conn.execute("SELECT state, count(*) FROM requests GROUP BY state"))


def test_it_asks_about_every_word_once():
    async def main():
        provider = Asked()
        async with a_store(map(str, range(500))) as store:
            ending = await crawled(store, provider)
            assert ending[:3] == ("finished", None, 0)
            assert await store.run(counts) == {"succeeded": 500}
        assert sorted(provider.words, key=int) == [str(n) for n in range(500)]
        assert provider.most_in_flight == 4

    asyncio.run(main())


def test_there_are_tasks_only_for_what_is_in_flight():
    async def main():
        most = 0

        async def answer(call):
            nonlocal most
            most = max(most, len(asyncio.all_tasks()))
            return Answer("x")

        async with a_store(map(str, range(300)), concurrency=7) as store:
            await crawled(store, Asked(answer))
        assert most <= 7 + 3

    asyncio.run(main())


def test_a_second_run_asks_nothing_again():
    async def main():
        async with a_store("ab") as store:
            await crawled(store, Asked())
            again = Asked()
            assert (await crawled(store, again)).reason == "finished"
            assert again.words == []

    asyncio.run(main())


@pytest.mark.parametrize(
    ("outcome", "state", "attempts"),
    [("transient", "failed", 3), ("rejected", "failed", 1), ("blocked", "failed", 1)],
)
def test_what_fails_ends_as_the_table_says(outcome, state, attempts):
    async def main():
        policy = Policy(max_failures=3, backoff_base_ms=1, backoff_cap_ms=1)
        provider = Asked(fails(Outcome(outcome)))
        async with a_store("a") as store:
            assert (await crawled(store, provider, policy)).reason == "failures"
            assert await store.run(counts) == {state: 1}
        assert len(provider.words) == attempts

    asyncio.run(main())


def test_a_polite_stop_waits_for_what_is_in_flight():
    async def main():
        stopping = asyncio.Event()
        scheduler = None

        async def answer(call):
            scheduler.stop(Reason.STOPPED)
            await stopping.wait()
            return Answer("paid for")

        def on_start(started):
            nonlocal scheduler
            scheduler = started

        async with a_store(map(str, range(20)), concurrency=3) as store:
            asyncio.get_running_loop().call_later(0.05, stopping.set)
            ending = await crawled(store, Asked(answer), on_start=on_start)
            assert (ending.reason, ending.unfinished) == ("stopped", 17)
            assert await store.run(counts) == {"succeeded": 3, "pending": 17}

    asyncio.run(main())


def test_a_polite_stop_does_not_wait_for_ever():
    async def main():
        provider = Asked(lambda call: asyncio.Event().wait())
        async with a_store("ab") as store:
            ending = await crawled(
                store,
                provider,
                Policy(drain_ms=1),
                on_start=lambda run: asyncio.get_running_loop().call_later(
                    0.05, run.stop, Reason.STOPPED
                ),
            )
            assert ending.reason == "stopped"
            rows = await store.run(lambda c: c.execute("SELECT outcome FROM attempts").fetchall())
            assert rows == [("interrupted",)] * 2
            assert await store.run(counts) == {"pending": 2}

    asyncio.run(main())


def test_refused_credentials_end_the_run_and_no_word():
    async def main():
        provider = Asked(fails(Outcome.DENIED, status_code=401))
        async with a_store(map(str, range(9))) as store:
            ending = await crawled(store, provider)
            assert (ending.reason, ending.unfinished) == ("credentials", 9)
            assert await store.run(counts) == {"pending": 9}
            assert len(provider.words) == 4, "nobody is asked again after the refusal"
        with pytest.raises(CrawlerError, match="refuses") as error:
            raise_for(ending)
        assert error.value.exit_code == Exit.DENIED

    asyncio.run(main())


def test_a_server_that_was_never_there_ends_the_run():
    async def main():
        provider = Asked(fails(Outcome.UNAVAILABLE))
        async with a_store(map(str, range(9))) as store:
            ending = await crawled(store, provider, HURRIED, clock=hurrying())
            assert (ending.reason, ending.unfinished) == ("unreachable", 9)
        assert len(provider.words) <= 4 + QUICK.unreachable_strikes
        with pytest.raises(CrawlerError, match="reached"):
            raise_for(ending)

    asyncio.run(main())


def test_a_server_that_loads_its_model_is_waited_for_longer_than_a_minute():
    async def main():
        asked = 0

        async def answer(call):
            nonlocal asked
            asked += 1
            if asked <= 12:  # two, and ten that try the gate: more than a minute
                said = "HTTP 503: the model is loading"
                raise ProviderError(
                    Outcome.UNAVAILABLE, said, status_code=503, kind="model_loading"
                )
            return Answer("loaded")

        async with a_store(map(str, range(20)), concurrency=2) as store:
            ending = await crawled(store, Asked(answer), HURRIED, clock=hurrying())
            assert ending.reason == "finished"
            assert await store.run(counts) == {"succeeded": 20}

    asyncio.run(main())


def test_a_run_after_one_that_loaded_in_vain_asks_by_itself():
    async def main():
        loads, asked = True, 0

        async def answer(call):
            nonlocal asked
            asked += 1
            if loads:
                said = "HTTP 503: the model is loading"
                raise ProviderError(
                    Outcome.UNAVAILABLE,
                    said,
                    status_code=503,
                    kind="model_loading",
                    retry_after_ms=60_000,
                )
            return Answer("loaded")

        async with a_store(map(str, range(20)), concurrency=2) as store:
            clock = hurrying()
            for _ in range(2):
                asked = 0
                ending = await crawled(store, Asked(answer), HURRIED, clock=clock)
                assert (ending.reason, ending.unfinished) == ("loading", 20)
                assert asked > 1, "each waits as long as the server asks"
            loads = False
            ending = await crawled(store, Asked(answer), HURRIED, clock=clock)
            assert ending.reason == "finished"

    asyncio.run(main())


def test_a_server_that_has_been_there_is_waited_for():
    async def main():
        calls = 0

        async def answer(call):
            nonlocal calls
            calls += 1
            if 5 < calls < 30:
                raise ProviderError(Outcome.UNAVAILABLE, "away")
            return Answer("back")

        async with a_store(map(str, range(20)), concurrency=2) as store:
            ending = await crawled(store, Asked(answer), HURRIED, clock=hurrying())
            assert ending.reason == "finished"
            assert await store.run(counts) == {"succeeded": 20}

    asyncio.run(main())


def test_a_quota_that_is_gone_for_long_ends_the_run_with_the_time():
    async def main():
        provider = Asked(fails(Outcome.THROTTLED, retry_after_ms=3_600_000))
        async with a_store(map(str, range(9))) as store:
            ending = await crawled(store, provider)
            assert (ending.reason, ending.unfinished) == ("quota_day", 9)
        assert len(provider.words) <= 4
        with pytest.raises(CrawlerError, match="quota") as error:
            raise_for(ending)
        assert error.value.exit_code == Exit.WORK_LEFT

    asyncio.run(main())


def test_it_starts_as_many_calls_as_it_may():
    async def main():
        provider = Asked()
        async with a_store(map(str, range(50))) as store:
            ending = await crawled(store, provider, max_calls=7)
            assert (ending.reason, ending.unfinished) == ("max_calls", 43)
        assert len(provider.words) == 7

    asyncio.run(main())


def test_it_starts_none_after_its_deadline():
    async def main():
        async with a_store(map(str, range(50))) as store:
            ending = await crawled(store, Asked(), deadline_ms=0)
            assert (ending.reason, ending.unfinished) == ("deadline", 50)

    asyncio.run(main())


def test_a_word_that_lacks_a_field_is_rejected_unsent():
    async def main():
        provider = Asked()
        async with open_store(None) as store:

            def put_needy(conn):
                limit_id = put_limit(conn, "quota", 1)
                spec = intake.PromptSpec("p", "{word}: {gloss}", "scripted", "m", {})
                prompt, _ = intake.put_prompt(conn, spec, limit_id, 1)
                words = [Word("bare", {}), Word("full", {"gloss": "g"})]
                intake.add_words(conn, prompt.id, words, 1)

            await store.run(put_needy)
            assert (await crawled(store, provider)).reason == "failures"
            assert await store.run(counts) == {"failed": 1, "succeeded": 1}
            (row,) = await store.run(lambda c: c.execute("SELECT * FROM failures").fetchall())
        assert provider.words == ["full"]
        assert "gloss" in row[2]

    asyncio.run(main())


def test_other_processes_are_obeyed_while_it_watches(tmp_path):
    """Pause, resume, more words and a cancellation, written by another connection."""
    path = tmp_path / "c.db"

    async def main():
        other = None
        steps = []

        def on_start(scheduler):
            steps.append(scheduler.stop)

        def command(function, *args):
            with other:
                return function(other, *args)

        def on_status(seen):
            done = sum(row.succeeded for row in seen.progress)
            match len(steps), done:
                case (1, 2):
                    command(control.pause, None, 1)
                    command(put, ["c", "d"])
                    steps.append("paused")
                case (2, _):
                    assert done == 2
                    command(control.cancel, [1], [control.word_id(other, "d")])
                    command(control.resume, None, 1)
                    steps.append("resumed")
                case (3, 3):
                    steps[0](Reason.STOPPED)

        async with a_store("ab", path) as store:
            other = sqlite3.connect(path)
            ending = await crawled(
                store, Asked(), watch=True, on_start=on_start, on_status=on_status
            )
            assert (ending.reason, ending.unfinished) == ("stopped", 0)
            assert await store.run(counts) == {"succeeded": 3, "cancelled": 1}
            other.close()

    asyncio.run(main())


def leave_open(conn, heartbeat_at_ms=1):
    """Leave a run behind that has leased everything and does nothing any more."""
    run_id = start_run(conn, 1, "host", "0", heartbeat_at_ms)
    conn.execute("UPDATE requests SET state = 'leased', attempts = 1")
    conn.execute(
        "INSERT INTO attempts (request_id, number, run_id, limit_id, started_at_ms)"
        " SELECT id, 1, ?, 1, ? FROM requests",
        (run_id, heartbeat_at_ms),
    )
    conn.execute("UPDATE limits SET started = (SELECT count(*) FROM attempts)")
    return run_id


def test_a_dead_run_is_taken_over_at_once(tmp_path):
    path = tmp_path / "c.db"

    async def main():
        async with a_store("abc", path) as store:
            dead = await store.run(leave_open)
            assert run_is_alive(path, dead) is False
            provider = Asked()
            assert (await crawled(store, provider)).reason == "finished"
            assert sorted(provider.words) == ["a", "b", "c"]
            rows = await store.run(
                lambda c: c.execute("SELECT outcome FROM attempts WHERE number = 1").fetchall()
            )
            assert rows == [("abandoned",)] * 3

    asyncio.run(main())


def test_a_run_of_another_start_of_the_machine_is_dead_though_its_lock_is_lost(tmp_path):
    async def main():
        async with a_store("a", tmp_path / "c.db") as store:
            await store.run(leave_open, wall_ms())  # a moment ago
            await store.run(lambda c: c.execute("UPDATE runs SET boot_id = 'another'"))
            assert (await crawled(store, Asked(), deadline_ms=5_000)).reason == "finished"

    asyncio.run(main())


def test_a_run_whose_lock_cannot_say_is_judged_by_its_heartbeat():
    async def main():
        async with a_store("a") as store:
            await store.run(leave_open)  # no lock to ask, a heartbeat of long ago
            assert (await crawled(store, Asked())).reason == "finished"

    asyncio.run(main())


def test_a_live_run_is_left_alone(tmp_path):
    path = tmp_path / "c.db"

    async def main():
        async with a_store("abc", path) as store:
            alive = await store.run(leave_open)
            lock = RunLock(path, alive)
            seen = []

            def on_status(now):
                seen.append(now.limits[0].in_flight)
                if len(seen) == 2:
                    lock.close()

            provider = Asked()
            assert (await crawled(store, provider, on_status=on_status)).reason == "finished"
            assert seen[:2] == [3, 3]

    asyncio.run(main())


def test_a_run_that_was_declared_dead_ends_and_starts_nothing(tmp_path):
    async def main():
        async with a_store("abc", tmp_path / "c.db", concurrency=1) as store:

            async def answer(call):
                await store.run(
                    lambda c: c.execute("UPDATE runs SET ended_at_ms = 1 << 60, reason = 'silent'")
                )
                return Answer("late")

            provider = Asked(answer)
            ending = await crawled(store, provider)
            assert ending.reason == "killed"
            assert len(provider.words) == 1

    asyncio.run(main())


def test_nothing_is_no_answer_whoever_gives_it():
    async def nothing(call):
        return Answer("", tokens_out=3)

    async def main():
        async with a_store("a") as store:
            policy = dataclasses.replace(QUICK, max_no_answers=1)
            assert (await crawled(store, Asked(nothing), policy)).reason == "failures"
            sql = "SELECT outcome, reason, tokens_out FROM attempts"
            (row,) = await store.run(lambda conn: conn.execute(sql).fetchall())
            assert row == ("no_answer", "the answer is empty", 3)
            assert await store.run(counts) == {"failed": 1}

    asyncio.run(main())


class HeldUp:
    """A store whose process stands still for two minutes after the commit of its first lease."""

    def __init__(self, store, clock_ms, meanwhile):
        self._store, self._clock_ms, self._meanwhile = store, clock_ms, meanwhile
        self.path = store.path
        self.tend, self.checkpoint, self.has_failed = store.tend, store.checkpoint, False

    async def run(self, transaction, *args):
        done = await self._store.run(transaction, *args)
        if transaction is turn.turn and done.leases and self._meanwhile:
            meanwhile, self._meanwhile = self._meanwhile, None
            self._clock_ms[0] += 2 * WINDOW_MS
            await meanwhile()
        return done


@pytest.mark.parametrize("others", [False, True])
def test_calls_that_were_held_up_leave_only_if_there_are_places(tmp_path, others):
    clock_ms = [10**12]
    runs = []

    def use_up(conn):
        """Another process takes the whole window."""
        run_id = start_run(conn, os.getpid(), "host", "0", clock_ms[0])
        scope = Scope(run_id=run_id, policy=QUICK, clock=lambda: clock_ms[0], draw=max)
        assert len(turn.turn(conn, scope, [], ANYTHING).leases) == 3

    async def main():
        async with a_store("abcdef", tmp_path / "c.db", concurrency=9) as store:

            async def meanwhile():
                if others:
                    await store.run(use_up)
                    runs[0].stop(Reason.STOPPED)

            await store.run(control.set_per_minute, "quota", 3, 10**12)
            await store.run(control.set_adaptive, "quota", 10**12, adaptive=False)
            provider = Asked()
            ending = await crawled(
                HeldUp(store, clock_ms, meanwhile),
                provider,
                clock=lambda: clock_ms[0],
                on_start=runs.append,
                max_calls=3,
            )
            assert (ending.reason, len(provider.words)) == (
                ("stopped", 0) if others else ("max_calls", 3)
            )
            left = {"leased": 3, "pending": 3} if others else {"succeeded": 3, "pending": 3}
            assert await store.run(counts) == left

    asyncio.run(main())


def test_a_cancelled_run_leaves_nothing_open(tmp_path):
    path = tmp_path / "c.db"

    async def main():
        started = asyncio.Event()

        async def answer(call):
            started.set()
            await asyncio.Event().wait()

        async with a_store("abc", path) as store:
            task = asyncio.create_task(crawled(store, Asked(answer)))
            async with asyncio.timeout(30):
                await started.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await store.run(counts) == {"pending": 3}
            assert await store.run(live_runs) == []
        assert not run_is_alive(path, 1)

    asyncio.run(main())


class SlowCommit:
    """A clock by which the first turn takes five seconds to commit."""

    def __init__(self):
        self._clock = wall_ms
        self._late_ms = 0

    def __call__(self):
        now_ms = self._clock() + self._late_ms
        if threading.current_thread() is not threading.main_thread():
            self._late_ms = 5_000
        return now_ms


def test_a_start_that_took_too_long_to_commit_is_moved():
    """What leaves late must not be on record as having left early."""

    async def main():
        async with a_store("a") as store:
            begun_ms = wall_ms()
            assert (await crawled(store, Asked(), clock=SlowCommit())).reason == "finished"
            ((started_ms,),) = await store.run(
                lambda c: c.execute("SELECT started_at_ms FROM attempts").fetchall()
            )
            assert started_ms >= begun_ms + 5_000

    asyncio.run(main())


def test_an_error_of_the_database_ends_the_run_and_writes_no_more(tmp_path):
    async def main():
        async with open_store(tmp_path / "c.db") as store:
            await store.run(put, "ab")

            async def answer(call):
                await store.run(lambda c: c.execute("DROP TABLE tallies"))
                return Answer("x")

            with pytest.raises(sqlite3.OperationalError, match="tallies"):
                await crawled(store, Asked(answer))
            assert len(await store.run(live_runs)) == 1

    asyncio.run(main())
    assert_no_thread_is_left()


def test_an_older_version_is_not_asked_and_does_not_count(tmp_path):
    """What failed under a version that has been replaced is no failure of today."""

    def replace(conn):
        spec = intake.PromptSpec("p", "Of {word}", "scripted", "m", {})
        new, _ = intake.put_prompt(conn, spec, 1, 2)
        return intake.waiting_words(conn, new.id)

    async def main():
        async with a_store("abc") as store:
            await crawled(store, Asked(fails(Outcome.REJECTED)), max_calls=2)
            before = await store.run(status, 600, 1)
            assert (before.failed, before.unfinished) == (2, 1)
            assert await store.run(replace) == 1
            provider = Asked()
            assert (await crawled(store, provider)).reason == "finished"
            now = await store.run(status, 600, 1)
            assert (now.succeeded, now.failed, now.unfinished) == (1, 0, 0)
        assert provider.words == ["c"], "what has failed is asked again by a retry"

    asyncio.run(main())


def test_a_mistake_in_the_program_still_leaves_nothing_open(tmp_path):
    async def main():
        def on_status(now):
            raise KeyError

        async with a_store("abc", tmp_path / "c.db") as store:
            with pytest.raises(KeyError):
                await crawled(
                    store, Asked(lambda call: asyncio.Event().wait()), on_status=on_status
                )
            assert await store.run(counts) == {"pending": 3}
            assert await store.run(live_runs) == []

    asyncio.run(main())


def test_a_run_that_is_refused_from_the_first_call_on_stops_and_fails_nothing():
    async def main():
        provider = Asked(fails(Outcome.REFUSED, status_code=404, kind="model_missing"))
        async with a_store(map(str, range(100))) as store:
            ending = await crawled(store, provider)
            assert (ending.reason, ending.unfinished) == ("configuration", 100)
            assert 10 <= len(provider.words) < 10 + 4, "those in flight may end"
            assert await store.run(counts) == {"pending": 100}
        with pytest.raises(CrawlerError, match="rejects") as error:
            raise_for(ending)
        assert error.value.exit_code == Exit.CONFIGURATION

    asyncio.run(main())


def test_a_run_that_has_been_served_goes_on_whatever_is_rejected():
    async def main():
        async def answer(call):
            if call.word == "0":
                raise ProviderError(Outcome.BLOCKED, "not this one")  # that is a service, too
            raise ProviderError(Outcome.REJECTED, "nor this one")

        async with a_store(map(str, range(50))) as store:
            ending = await crawled(store, Asked(answer))
            assert (ending.reason, await store.run(counts)) == ("failures", {"failed": 50})

    asyncio.run(main())


def test_a_prompt_that_is_served_hides_no_other_that_is_rejected_alone():
    async def main():
        async def answer(call):
            if call.prompt.startswith("To"):
                raise ProviderError(Outcome.REFUSED, "no such model", kind="model_missing")
            return Answer("x")

        async with a_store(map(str, range(50))) as store:
            await store.run(put, map(str, range(50)), name="q", template="To {word}")
            ending = await crawled(store, Asked(answer))
            assert ending.reason == "configuration"
            assert await store.run(counts) == {"succeeded": 50, "pending": 50}

    asyncio.run(main())


def rejecting(*good):
    """Return what answers about some words and rejects all others."""

    async def answer(call):
        if call.word not in good:
            raise ProviderError(Outcome.REJECTED, "nor this one")
        return Answer("x")

    return answer


def test_a_few_rejections_of_each_of_many_prompts_stop_nothing():
    async def main():
        async with a_store("ab") as store:
            for name in "qrstu":
                await store.run(put, "ab", name=name)
            await store.run(put, "xyz", name="last")
            ending = await crawled(store, Asked(rejecting(*"xyz")))
            assert ending.reason == "failures"
            assert await store.run(counts) == {"failed": 12, "succeeded": 3}

    asyncio.run(main())


def test_refusals_that_come_before_the_answers_stop_nothing_for_good():
    async def main():
        async with a_store(map(str, range(30))) as store:

            async def answer(call):
                if call.word in ("0", "1"):
                    # Until the run has taken note of ten refusals, and some turns longer.
                    while len(provider.words) < 12:
                        await asyncio.sleep(0)
                    for _ in range(500):
                        await store.run(counts)
                    seen.append(len(provider.words))
                    return Answer("x")
                if len(seen) == 2:
                    return Answer("x")
                raise ProviderError(Outcome.REFUSED, "not this one", kind="model_missing")

            seen = []
            provider = Asked(answer)
            ending = await crawled(store, provider)
            assert ending.reason == "finished", "what was refused then came back"
            assert await store.run(counts) == {"succeeded": 30}
            assert max(seen) <= 2 + 10 + 1, "in doubt it is asked about no more words"

    asyncio.run(main())


def test_what_failed_in_passing_was_not_served():
    async def main():
        async def answer(call):
            if call.word == "0" and call.number == 1:
                raise ProviderError(Outcome.TRANSIENT, "busy")
            raise ProviderError(Outcome.REFUSED, "no such model", kind="model_missing")

        async with a_store(map(str, range(50))) as store:
            ending = await crawled(store, Asked(answer))
            assert (ending.reason, ending.detail) == ("configuration", "no such model")
            assert await store.run(counts) == {"pending": 50}

    asyncio.run(main())


def test_a_prompt_that_an_earlier_run_was_served_for_is_in_order():
    async def main():
        async with a_store(map(str, range(50))) as store:
            await crawled(store, Asked(), max_calls=1)
            ending = await crawled(store, Asked(rejecting()))
            assert (ending.reason, await store.run(counts)) == (
                "failures",
                {"succeeded": 1, "failed": 49},
            )

    asyncio.run(main())


@pytest.mark.parametrize("first", ["succeeded", "throttled", "transient", "blocked"])
def test_whoever_has_said_anything_has_been_reached(first):
    """Then the server is only away, for longer than one that nobody has ever seen would be."""
    away = QUICK.unreachable_strikes + 3

    async def main():
        tries = iter([Outcome(first), *[Outcome.UNAVAILABLE] * away])

        async def answer(call):
            outcome = next(tries, Outcome.SUCCEEDED)
            if outcome is not Outcome.SUCCEEDED:
                raise ProviderError(outcome, "not now")
            return Answer("x")

        async with a_store("abc", concurrency=1) as store:
            ending = await crawled(store, Asked(answer), HURRIED, clock=hurrying())
            assert ending.reason in ("finished", "failures")
            done = await store.run(counts)
            assert done["succeeded"] == 3 - done.get("failed", 0)

    asyncio.run(main())


def test_of_the_calls_a_run_remembers_those_in_flight_alone():
    async def main():
        started = []

        async def answer(call):
            [run] = started
            known.append(len(run._costs))
            if call.number == 1:
                raise ProviderError(Outcome.TRANSIENT, "once more")
            return Answer("x")

        known = []
        async with a_store(map(str, range(100))) as store:
            facts = {"clock": hurrying(), "on_start": started.append, "budget": Allowance(1, 1e9)}
            assert (await crawled(store, Asked(answer), HURRIED, **facts)).reason == "finished"
        assert max(known) <= 4
        assert started[0]._costs == {}

    asyncio.run(main())


def test_a_run_for_one_request_asks_about_nothing_else():
    async def main():
        tries = iter([Outcome.TRANSIENT, Outcome.THROTTLED])

        async def answer(call):
            outcome = next(tries, None)
            if outcome is not None:
                raise ProviderError(outcome, "not yet")
            return Answer("at last")

        provider = Asked(answer)
        async with a_store("abc") as store:
            ending = await crawled(store, provider, selection=Selection(request_ids=(2,)))
            assert ending[:3] == ("finished", None, 0)
            assert provider.words == ["b", "b", "b"]
            assert await store.run(counts) == {"pending": 2, "succeeded": 1}
            again = await crawled(store, provider, selection=Selection(request_ids=(2,)))
            assert again.reason == "finished"
            assert len(provider.words) == 3, "it has its answer"

    asyncio.run(main())


def test_a_disk_that_is_too_slow_for_a_window_ends_the_run_and_one_without_a_window_goes_on():
    async def main():
        late = itertools.count(10**12, 1_000)  # each look at the clock is a second later
        policy = Policy(guard_ms=100, drain_ms=10**9, backoff_base_ms=1, backoff_cap_ms=1)

        async with a_store("ab") as store:
            ending = await crawled(store, Asked(), policy, clock=late.__next__)
            assert ending.reason == "finished", "nothing says when a call has to leave"
        async with a_store("ab") as store:
            await store.run(control.set_per_minute, "quota", 600, 10**12)
            asked = Asked()
            ending = await crawled(store, asked, policy, clock=late.__next__)
            assert (ending.reason, ending.unfinished, asked.words) == ("disk", 2, [])
            with pytest.raises(CrawlerError) as error:
                raise_for(ending)
            assert error.value.exit_code == Exit.DATABASE
            assert await store.run(counts) == {"pending": 2}

    asyncio.run(main())


@pytest.mark.parametrize("how", ["moved", "replaced", "removed"])
def test_a_file_that_is_taken_away_ends_the_run_before_it_pays_for_much_more(tmp_path, how):
    path = tmp_path / "c.db"

    async def main():
        async def answer(call):
            if call.word == "0":
                path.unlink() if how == "removed" else path.rename(tmp_path / "elsewhere.db")
                if how == "replaced":
                    path.touch()
            await asyncio.sleep(0.05)
            return Answer("x")

        async with open_store(path) as store:
            await store.run(put, map(str, range(10_000)))
            asked = Asked(answer)
            told = "has been removed" if how == "removed" else "has been moved to .*elsewhere.db"
            with pytest.raises(CrawlerError, match=told) as error:
                await crawled(store, asked)
            assert error.value.exit_code == Exit.DATABASE
            assert len(asked.words) < 500

    asyncio.run(main())


def test_a_run_for_a_prompt_serves_the_version_that_is_current_meanwhile():
    async def main():
        async with a_store(map(str, range(20)), concurrency=1) as store:

            async def answer(call):
                if call.prompt == "About 0":
                    await store.run(put, map(str, range(20)), template="Of {word}")
                return Answer("x")

            asked = Asked(answer)
            ending = await crawled(store, asked, selection=Selection(prompt="p"))
            assert ending.reason == "finished"
            sql = "SELECT version, succeeded, pending FROM progress ORDER BY version"
            rows = await store.run(lambda conn: conn.execute(sql).fetchall())
            assert rows == [(1, 1, 0), (2, 19, 0)], "nothing more is paid for the old one"

    asyncio.run(main())


def test_after_an_error_of_the_database_a_cancelled_run_writes_nothing_more():
    async def main():
        async with a_store("ab") as store:
            calls = asyncio.Event()

            async def answer(call):
                calls.set()
                await asyncio.Event().wait()

            run = asyncio.create_task(crawled(store, Asked(answer)))
            await calls.wait()

            def broken(conn):
                raise sqlite3.OperationalError("disk I/O error")

            with pytest.raises(sqlite3.OperationalError):
                await store.run(broken)
            run.cancel()
            with pytest.raises(asyncio.CancelledError):
                await run
            (row,) = await store.run(lambda c: c.execute("SELECT ended_at_ms FROM runs").fetchall())
            assert row == (None,), "what is in the file is not known: the next run finds out"

    asyncio.run(main())


def test_an_expensive_word_ends_no_run_that_has_others_to_ask():
    async def main():
        async with a_store(["long " * 9_000, "a", "b"]) as store:
            asked = Asked()
            ending = await crawled(store, asked, budget=Allowance(1, 3_000))
            assert (ending.reason, ending.unfinished) == ("max_tokens", 1)
            assert asked.words == ["a", "b"]

    asyncio.run(main())


def test_prompts_in_doubt_end_a_run_when_nothing_else_is_left():
    async def main():
        async with a_store(map(str, range(40))) as store:
            await store.run(put, "xyz", name="good", template="Of {word}")

            async def answer(call):
                if call.prompt.startswith("About"):
                    raise ProviderError(Outcome.REFUSED, "no such model", kind="model_missing")
                return Answer("x")

            ending = await crawled(store, Asked(answer), clock=hurrying())
            assert (ending.reason, ending.detail) == ("configuration", "no such model")
            sql = "SELECT succeeded FROM progress WHERE prompt = 'good'"
            assert await store.run(lambda conn: conn.execute(sql).fetchone()) == (3,)
            again = Asked(answer)
            assert (await crawled(store, again)).reason == "configuration"
            assert len(again.words) == 1, "a new run sends one call"
            assert "failed" not in await store.run(counts)

    asyncio.run(main())
