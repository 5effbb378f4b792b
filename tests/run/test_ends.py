"""How far a run goes, and what the moments in between leave: late commits, stops, ends."""

import asyncio
import io
import json
import os

import pytest

from crawler.errors import Exit
from crawler.ledger import control
from crawler.ledger.runs import Selection
from crawler.logs import json_lines
from crawler.policy import Policy
from crawler.protocol import Answer, ProviderError
from crawler.run.ending import Ending, Reason, error_of, exit_code
from crawler.states import Outcome
from tests.crawling import QUICK, Played, a_store, crawled, put, rows
from tests.program import crawler

STATES = "SELECT state, count(*) FROM requests GROUP BY state ORDER BY state"
NOW_MS = 1_000_000_000_000


class Heard:
    """The log of a run."""

    def __init__(self):
        self._lines = io.StringIO()
        self.log = json_lines(stream=self._lines)

    def events(self):
        return [json.loads(line)["event"] for line in self._lines.getvalue().splitlines()]

    def told(self, event):
        """Return the fields of each event of this name."""
        lines = map(json.loads, self._lines.getvalue().splitlines())
        return [line for line in lines if line["event"] == event]


class SlowDisk:
    """A clock on which the commits of some turns take long: those whose numbers are given.

    What came too late is released, which is told.
    """

    def __init__(self, heard, *late):
        self._heard, self._late = heard, late
        self._now_ms = NOW_MS
        self.in_time = 0

    def __call__(self):
        moved = self._heard.events().count("leases_released")
        if moved + self.in_time in self._late:
            self._now_ms += 1_000
        return self._now_ms


def slow_crawl(*late):
    """Ask about eight words, one after the other; return the ending, the calls and the states."""

    async def main():
        heard = Heard()
        clock = SlowDisk(heard, *late)

        def answer(call):
            clock.in_time += 1
            return Answer("x")

        async with a_store("abcdefgh", concurrency=1) as store:
            await store.run(control.set_per_minute, "quota", 600, NOW_MS)
            await store.run(control.set_adaptive, "quota", NOW_MS, adaptive=False)
            provider = Played(answer)
            policy = Policy(guard_ms=100, drain_ms=10**9)
            ending = await crawled(store, provider, policy, clock=clock, log=heard.log)
            return ending, len(provider.calls), await rows(store, STATES)

    return asyncio.run(main())


@pytest.mark.parametrize(
    "late", [(0, 1, 2, 3), (0, 1, 2, 3, 5), (0, 1, 2, 3, 5, 6, 7, 8), (0, 2, 4, 6, 8, 10)]
)
def test_commits_that_are_late_now_and_then_end_no_run(late):
    ending, calls, states = slow_crawl(*late)
    assert (ending.unfinished, calls, states) == (0, 8, [("succeeded", 8)])


@pytest.mark.parametrize(("late", "calls"), [(range(5), 0), (range(2, 7), 2)])
def test_five_late_commits_in_a_row_end_it(late, calls):
    ending, made, states = slow_crawl(*late)
    assert ending.unfinished == 8 - calls
    assert made == calls
    assert states == [("pending", 8 - calls)] + [("succeeded", calls)] * (calls > 0)


class OneLateCommit:
    """A clock that stands still until a lease is on record, and goes on then, once."""

    def __init__(self, late_ms):
        self.now_ms = NOW_MS
        self._late_ms = late_ms
        self.is_leased = False

    def __call__(self):
        now_ms = self.now_ms
        if self.is_leased and self._late_ms:
            self.now_ms, self._late_ms = self.now_ms + self._late_ms, 0
        return now_ms


async def late_crawl(store, clock, log, guard_ms=600):
    """Make a run whose first lease comes late to the disk."""

    def look(sql):
        # The lease is made in the transaction whose commit is late.
        clock.is_leased = clock.is_leased or sql.startswith("INSERT INTO attempts")
        if clock.is_leased:
            clock()

    await store.run(lambda conn: conn.set_trace_callback(look))
    provider = Played(lambda call: Answer("x"))
    ending = await crawled(store, provider, Policy(guard_ms=guard_ms), clock=clock, log=log)
    await store.run(lambda conn: conn.set_trace_callback(None))
    assert ending.unfinished == 0


@pytest.mark.parametrize(
    ("guard_ms", "late_ms", "moved"),
    [(600, 300, 0), (600, 301, 1), (100, 50, 0), (100, 51, 1), (1, 1, 1)],
)
def test_a_lease_is_released_when_its_commit_took_more_than_half_the_guard(
    guard_ms, late_ms, moved
):
    """The other half is for the way to the server."""

    async def main():
        heard, clock = Heard(), OneLateCommit(late_ms)
        async with a_store("a") as store:
            await store.run(control.set_per_minute, "quota", 600, NOW_MS)

            await late_crawl(store, clock, heard.log, guard_ms)
            started = await rows(store, "SELECT started_at_ms FROM attempts ORDER BY number")
        assert heard.events().count("leases_released") == moved
        assert started == [(NOW_MS,)] * moved + [(NOW_MS + moved * late_ms,)]

    asyncio.run(main())


@pytest.mark.parametrize("windowed", ["one", "two"])
def test_leases_are_released_where_one_of_two_limits_has_a_window(windowed):
    async def main():
        clock = OneLateCommit(301)
        async with a_store("a", limit="one") as store:
            await store.run(put, "b", name="q", limit="two")
            await store.run(control.set_per_minute, windowed, 600, NOW_MS)
            await late_crawl(store, clock, json_lines(stream=io.StringIO()))
            started = "SELECT started_at_ms FROM attempts JOIN limits ON id = limit_id"
            return await rows(store, f"{started} WHERE name = ?", windowed)

    assert asyncio.run(main()) == [(NOW_MS,), (NOW_MS + 301,)]


def test_what_was_released_last_gives_its_tokens_back_like_the_others():
    async def main():
        heard = Heard()
        async with a_store("abc", concurrency=1) as store:
            await store.run(control.set_per_minute, "quota", 600, NOW_MS)
            await store.run(control.set_tokens_per_minute, "quota", 10**9, NOW_MS)
            clock, policy = SlowDisk(heard, *range(9)), Policy(guard_ms=100)
            provider = Played(lambda call: Answer("x"))
            ending = await crawled(store, provider, policy, clock=clock, log=heard.log)
            assert (ending.reason, provider.words) == ("disk", [])
            ends = (
                "SELECT count(*), outcome, reason, tokens_in, tokens_out FROM attempts GROUP BY 3"
            )
            reason = "its commit ended too late for its place in the window"
            assert await rows(store, ends) == [(5, "interrupted", reason, 0, 0)]

    asyncio.run(main())


def test_an_answer_that_came_before_a_cancel_is_recorded():
    """Between the last turn and the cancel: nobody has looked for it yet, and it is paid for."""

    async def main():
        async with a_store("ab", concurrency=1) as store:

            def answer(call):
                crawl.cancel()
                return Answer("paid for", 1, 2)

            crawl = asyncio.create_task(crawled(store, Played(answer)))
            with pytest.raises(asyncio.CancelledError):
                await crawl
            assert await rows(store, "SELECT word, text, tokens_out FROM results") == [
                ("a", "paid for", 2)
            ]
            assert await rows(store, STATES) == [("pending", 1), ("succeeded", 1)]
            again = Played(lambda call: Answer("x"))
            await crawled(store, again)
            assert again.words == ["b"]

    asyncio.run(main())


def test_what_is_in_flight_at_a_cancel_is_interrupted_and_costs_no_failure():
    async def main():
        async with a_store("ab") as store:

            async def answer(call):
                if call.word == "b":
                    crawl.cancel()
                await asyncio.Event().wait()

            crawl = asyncio.create_task(crawled(store, Played(answer)))
            with pytest.raises(asyncio.CancelledError):
                await crawl
            ended = "SELECT outcome, state, failures FROM attempts JOIN requests ON id = request_id"
            assert await rows(store, ended) == [("interrupted", "pending", 0)] * 2
            assert await rows(store, "SELECT count(*) FROM runs WHERE ended_at_ms IS NULL") == [
                (0,)
            ]

    asyncio.run(main())


def test_a_run_that_was_given_up_keeps_the_reason_that_the_other_gave():
    """It ends by itself when it finds that out, and changes nothing of what is on record."""

    def give_up(conn):
        conn.execute(
            "UPDATE attempts SET finished_at_ms = started_at_ms, outcome = 'abandoned',"
            " reason = 'silent'"
        )
        conn.execute("UPDATE requests SET state = 'pending' WHERE state = 'leased'")
        conn.execute("UPDATE runs SET ended_at_ms = ?, reason = 'silent'", (2**41,))

    async def main():
        async with a_store("ab", concurrency=1) as store:

            async def answer(call):
                await store.run(give_up)
                return Answer("late")

            provider = Played(answer)
            ending = await crawled(store, provider)
            assert (provider.words, ending.unfinished) == (["a"], 2)
            runs = await rows(store, "SELECT ended_at_ms, reason, late_answers FROM runs")
            assert runs == [(2**41, "silent", 1)]
            assert await rows(store, "SELECT outcome FROM attempts") == [("abandoned",)]
            assert await rows(store, "SELECT * FROM results") == []

    asyncio.run(main())


def test_a_status_can_be_asked_for_while_it_runs(tmp_path):
    """The run is told it once a second, and any other process reads the same."""
    path = tmp_path / "c.db"
    told, read = [], []

    def on_status(now):
        told.append(now)
        read.append(json.loads(crawler("--db", path, "status", "--json").out))

    async def main():
        clock_ms = [NOW_MS]

        async def answer(call):
            if call.word == "c":
                while not told:
                    await asyncio.sleep(0)
            clock_ms[0] += 600
            return Answer("x")

        async with a_store("abcdef", path, concurrency=1) as store:
            await crawled(store, Played(answer), clock=lambda: clock_ms[0], on_status=on_status)

    asyncio.run(main())
    now, seen = told[0], read[0]
    assert (now.succeeded, now.failed, now.unfinished) == (2, 0, 4)
    assert now.now_ms == NOW_MS + 1_200
    assert now.eta_ms == 4 * 600, "two of them took 1.2 s"
    [progress], [limit], [run] = seen["prompts"], seen["limits"], seen["runs"]
    counts = ("pending", "leased", "succeeded", "failed", "cancelled")
    assert [progress[name] for name in counts] == [3, 1, 2, 0, 0]
    assert (limit["limit"], limit["in_flight"], limit["held_by"]) == ("quota", 1, "concurrency")
    assert (run["run_id"], run["pid"], run["alive"]) == (1, os.getpid(), True)
    assert told[1].now_ms - told[0].now_ms >= 1_000


@pytest.mark.parametrize("most", [1, 2, 3])
def test_it_makes_as_many_calls_as_it_may_whatever_becomes_of_them(most):
    async def main():
        outcomes = {"a": Outcome.BLOCKED, "b": Outcome.INTERRUPTED}

        def answer(call):
            if call.word in outcomes and call.number == 1:
                return ProviderError(outcomes[call.word], "no")
            return Answer("x")

        async with a_store("abcd", concurrency=1) as store:
            provider = Played(answer)
            await crawled(store, provider, max_calls=most)
            assert len(provider.calls) == most

    asyncio.run(main())


def test_calls_of_two_limits_are_counted_together():
    async def main():
        provider = Played(lambda call: Answer("x"))
        async with a_store("abc", limit="one") as store:
            await store.run(put, "abc", name="q", limit="two")
            ending = await crawled(store, provider, max_calls=4)
            assert (len(provider.calls), ending.unfinished) == (4, 2)
            ending = await crawled(store, provider, max_calls=1)
            assert (len(provider.calls), ending.unfinished) == (5, 1), "each run has its own"

    asyncio.run(main())


def test_nothing_starts_after_the_deadline_and_what_has_started_is_waited_for():
    async def main():
        clock_ms = [NOW_MS]

        def answer(call):
            clock_ms[0] += 500
            return Answer("x")

        async with a_store("abcdef", concurrency=1) as store:
            provider = Played(answer)
            await crawled(store, provider, clock=lambda: clock_ms[0], deadline_ms=1_000)
            assert provider.words == ["a", "b"]
            assert await rows(store, STATES) == [("pending", 4), ("succeeded", 2)]
            await crawled(store, provider, clock=lambda: clock_ms[0], deadline_ms=1_001)
            assert provider.words == [*"abcde"], "it is counted from the start of the run"

    asyncio.run(main())


def test_a_call_that_does_not_end_is_given_up_a_while_after_the_deadline():
    async def main():
        clock_ms = [NOW_MS]

        def look():
            clock_ms[0] += 150
            return clock_ms[0]

        async def never(call):
            await asyncio.Event().wait()

        policy = Policy(drain_ms=2_000, call_timeout_ms=10**9, lost_after_ms=10**9 + 2_001)
        async with a_store("ab", concurrency=1) as store:
            provider = Played(never)
            ending = await crawled(store, provider, policy, clock=look, deadline_ms=2_000)
            assert (ending.reason, ending.unfinished) == ("deadline", 2)
            assert clock_ms[0] < NOW_MS + 8_000
            outcome = "SELECT outcome, reason FROM attempts"
            assert await rows(store, outcome) == [("interrupted", "the run stopped")]

    asyncio.run(asyncio.wait_for(main(), 20))


def test_who_watches_waits_for_a_server_that_nobody_has_seen_yet():
    async def main():
        clock_ms = [NOW_MS]

        def look():
            clock_ms[0] += 2_000
            return clock_ms[0]

        runs = []

        def answer(call):
            if len(provider.calls) < 9:
                return ProviderError(Outcome.UNAVAILABLE, "nobody")
            if len(provider.calls) == 11:
                runs[0].stop("stopped")
            return Answer("x")

        provider = Played(answer)
        policy = Policy(guard_ms=10**9, patience_ms=10**9, unreachable_strikes=5)
        async with a_store("abc", concurrency=1) as store:
            ending = await crawled(
                store, provider, policy, clock=look, watch=True, on_start=runs.append
            )
            assert (ending.reason, ending.unfinished) == ("stopped", 0)
            assert await rows(store, STATES) == [("succeeded", 3)]

    asyncio.run(asyncio.wait_for(main(), 20))


def test_refused_credentials_stop_calls_of_all_prompts_and_fail_no_word():
    async def main():
        denied = Played(lambda call: ProviderError(Outcome.DENIED, "who are you?"))
        async with a_store("ab", limit="one", concurrency=1) as store:
            await store.run(put, "abc", name="q", limit="two", concurrency=1)
            ending = await crawled(store, denied)
            assert (ending.detail, ending.unfinished) == ("who are you?", 5)
            assert len(denied.calls) <= 4, "three, and one that was in flight"
            assert await rows(store, STATES) == [("pending", 5)]

    asyncio.run(main())


def test_a_log_tells_of_each_attempt_that_failed_and_of_the_end():
    async def main():
        heard = Heard()

        def answer(call):
            return ProviderError(Outcome.BLOCKED, "no") if call.word == "a" else Answer("x")

        async with a_store("abc") as store:
            await crawled(store, Played(answer), log=heard.log)
        [failed] = heard.told("attempt_failed")
        known = ("request_id", "number", "outcome", "reason")
        assert [failed[name] for name in known] == [1, 1, "blocked", "no"]
        [ended] = heard.told("run_ended")
        assert (ended["run_id"], ended["unfinished"]) == (1, 0)

    asyncio.run(main())


def test_a_gate_that_closes_is_told_once():
    async def main():
        heard = Heard()
        refused = ProviderError(Outcome.THROTTLED, "no", retry_after_ms=10**9)
        async with a_store("abc") as store:
            await crawled(store, Played(lambda call: refused), log=heard.log)
            ((opens_at_ms,),) = await rows(store, "SELECT gate_opens_at_ms FROM limits")
        [closed] = heard.told("gate_closed")
        assert (closed["cause"], closed["opens_at_ms"]) == ("quota", opens_at_ms)

    asyncio.run(main())


def test_the_end_of_a_run_that_found_nobody_lets_the_next_one_find_out_at_once():
    async def main():
        clock_ms = [NOW_MS]

        def look():
            clock_ms[0] += 1_000
            return clock_ms[0]

        away = Played(lambda call: ProviderError(Outcome.UNAVAILABLE, "nobody"))
        policy = Policy(guard_ms=10**9, patience_ms=10**9)
        async with a_store("abc") as store:
            ending = await crawled(store, away, policy, clock=look)
            assert (ending.detail, ending.unfinished) == ("nobody", 3)
            gate = "SELECT gate_cause, gate_reason, gate_opens_at_ms, gate_strikes"
            assert await rows(store, f"{gate} FROM limits") == [(None, None, 0, 0)]
            there = Played(lambda call: Answer("x"))
            await crawled(store, there, policy, clock=look)
            assert sorted(there.words) == [*"abc"]

    asyncio.run(main())


def test_a_run_for_one_prompt_asks_that_one_alone():
    async def main():
        provider = Played(lambda call: Answer("x"))
        async with a_store("ab") as store:
            await store.run(put, "cd", name="q", template="On {word}")
            ending = await crawled(store, provider, QUICK, selection=Selection(prompt_ids=(2,)))
            assert (sorted(provider.words), ending.unfinished) == (["c", "d"], 0)
            assert await rows(store, STATES) == [("pending", 2), ("succeeded", 2)]

    asyncio.run(main())


@pytest.mark.parametrize(
    "kinds", [("model_missing", "permission_model"), ("permission_model", "model_missing")]
)
def test_of_several_prompts_that_are_stopped_the_most_urgent_tells_why_a_run_ends(kinds):
    """In which order they were added says nothing of what a person has to do first."""

    def refused(kind):
        return Played(lambda call: ProviderError(Outcome.REFUSED, f"said: {kind}", kind=kind))

    async def main():
        async with a_store(map(str, range(12))) as store:
            await store.run(put, map(str, range(12)), name="second", model="n", limit="other")
            given = {model: refused(kind) for model, kind in zip("mn", kinds, strict=True)}
            ending = await crawled(store, given)
            assert (ending.reason, ending.unfinished) == ("credentials", 24)
            assert ending.detail == "said: permission_model"
            assert exit_code(ending) == Exit.DENIED

    asyncio.run(main())


CODES = {
    "finished": 0,
    "failures": 3,
    "credentials": 77,
    "configuration": 78,
    "unreachable": 69,
    "loading": 69,
    "disk": 73,
    "locked": 73,
    "stuck": 1,
    **dict.fromkeys("deadline max_calls max_tokens budget quota_day no_money".split(), 75),
    **dict.fromkeys("stopped killed declined".split(), 75),
}
TO_MEND = set(
    "credentials configuration no_money unreachable disk killed max_tokens budget quota_day"
    " stuck loading".split()
)
"""Where somebody has to do something, or to wait, that is told as an error."""


@pytest.mark.parametrize("reason", sorted(Reason))
@pytest.mark.parametrize("left", [0, 2])
def test_each_reason_has_its_code_and_is_told_where_there_is_something_to_mend(reason, left):
    ending = Ending(reason, "cause", left, opens_at_ms=NOW_MS)
    assert exit_code(ending) == CODES[reason]
    error = error_of(ending, "crawler again")
    if reason not in TO_MEND or (reason == "killed" and not left):
        assert error is None  # of a run that was given up when all was done there is nothing to say
        return
    assert error.exit_code == CODES[reason]
    assert error.what.endswith("; what is left stays pending") == bool(left)
    assert error.cause
    assert "{again}" not in error.hint
