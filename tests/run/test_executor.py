"""The executor: every call that is handed in comes out as one end, whatever a provider does."""

import asyncio
import random
import sqlite3
import sys

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from crawler.errors import CrawlerError
from crawler.ledger.budget import Allowance
from crawler.ledger.check import check
from crawler.ledger.intake import PromptSpec, add_words, put_prompt
from crawler.ledger.limits import put_limit
from crawler.ledger.runs import Scope, start_run
from crawler.ledger.turn import turn
from crawler.policy import PATIENCE_MS, Policy
from crawler.protocol import Answer, Call, ProviderError, Told, Word
from crawler.providers import Kind
from crawler.run import executor as executor_module
from crawler.run.executor import LocalExecutor
from crawler.states import Outcome
from crawler.storage.database import configure
from crawler.storage.locks import WriteLock
from tests.conftest import LONG


def a_call(word, request_id=1, **other):
    call = Call(request_id, 1, word, "test", "m", f"Define {word}.", "", {}, 10_000)
    return call._replace(**other)


class Stub:
    """A provider that does what a function says."""

    def __init__(self, function):
        self.generate = function


class Bench:
    """An executor whose clock stands still until it is moved, and its ends."""

    def __init__(self, function):
        self.now_ms = 1_000
        self.ended = asyncio.Event()
        given = {("test", "m"): Stub(function)}
        self.executor = LocalExecutor(lambda: self.now_ms, self.ended.set, given)

    async def ends(self, count):
        """Return so many ends, as soon as there are as many."""
        found = []
        async with asyncio.timeout(10):
            while len(found) < count:
                await self.ended.wait()
                self.ended.clear()
                found += self.executor.outcomes()
        return found


def ends_of(function, *calls):
    """Make calls and return how they ended; nothing may be left of them."""

    async def make():
        bench = Bench(function)
        bench.executor.submit(calls)
        assert bench.executor.in_flight() == len(calls)
        ends = await bench.ends(len(calls))
        assert (bench.executor.in_flight(), bench.executor.waiting()) == (0, 0)
        assert bench.executor.outcomes() == []
        await bench.executor.close()
        return ends

    return asyncio.run(make())


async def answer(call):
    return Answer(call.word.upper(), 3, 4)


async def never(call):
    await asyncio.Event().wait()


async def fail(call):
    raise ValueError(f"no {call.word}")


def test_an_answer_is_a_success_with_its_tokens_and_its_time():
    [end] = ends_of(answer, a_call("cat", request_id=7, number=3))
    assert end[:10] == (7, 3, 1_000, Outcome.SUCCEEDED, "CAT", None, None, None, 3, 4)


@pytest.mark.parametrize("outcome", [out for out in Outcome if out is not Outcome.SUCCEEDED])
def test_a_provider_says_how_a_call_ended(outcome):
    async def refuse(call):
        raise ProviderError(
            outcome, "why", status_code=418, retry_after_ms=5, answer=Answer("", 1, 2)
        )

    [end] = ends_of(refuse, a_call("cat"))
    assert end[:10] == (1, 1, 1_000, outcome, None, "why", 418, 5, 1, 2)


def test_every_call_ends_once():
    async def mixed(call):
        return await (answer if int(call.word) % 3 else fail)(call)

    ends = ends_of(mixed, *(a_call(str(n), request_id=n) for n in range(300)))
    assert sorted(end.request_id for end in ends) == list(range(300))


@pytest.mark.parametrize("error", [ValueError("boom"), KeyError("x"), TimeoutError(), OSError(5)])
def test_a_mistake_of_a_provider_is_a_transient_failure(error):
    async def mistake(call):
        raise error

    [end] = ends_of(mistake, a_call("cat"))
    assert end.outcome is Outcome.TRANSIENT
    assert end.reason.startswith(f"{type(error).__name__}: ")


def test_a_reason_is_short():
    [end] = ends_of(fail, a_call("x" * 1_000))
    assert len(end.reason) == 500


@pytest.mark.parametrize("given", [None, "text", Answer(None), Answer(b"bytes"), Answer(7)])
def test_an_answer_of_another_kind_is_a_transient_failure(given):
    async def other(call):
        return given

    [end] = ends_of(other, a_call("cat"))
    assert end.outcome is Outcome.TRANSIENT


def test_a_call_without_an_answer_in_time_is_a_transient_failure():
    async def make():
        bench = Bench(never)
        bench.executor.submit([a_call("slow", 1, timeout_ms=2_000), a_call("slower", 2)])
        bench.now_ms += 2_000 + PATIENCE_MS - 1
        await asyncio.sleep(0)
        assert bench.executor.outcomes() == []
        bench.now_ms += 1
        assert bench.executor.outcomes() == []
        [end] = await bench.ends(1)
        assert bench.executor.in_flight() == 1
        await bench.executor.close()
        return end

    end = asyncio.run(make())
    assert (end.request_id, end.outcome, end.finished_at_ms) == (1, Outcome.TRANSIENT, 5_000)
    assert end.reason == "no answer within 2 s"


def test_what_a_server_tells_of_its_quota_is_kept_beside_an_answer_that_is_no_good():
    async def no_good(call):
        error = ProviderError(Outcome.NO_ANSWER, "cut off", answer=Answer("To rep"))
        error.told = (Told("requests", 60, "minute"),)
        raise error

    [end] = ends_of(no_good, a_call("cat"))
    assert (end.text, end.told) == ("To rep", (Told("requests", 60, "minute"),))


def test_a_call_that_may_take_long_keeps_none_behind_it_from_being_given_up():
    async def make():
        bench = Bench(never)
        calls = [("flex", 1_800_000), ("slow", 2_000), ("slower", 20_000), ("as slow", 2_000)]
        made = [a_call(word, n, timeout_ms=ms) for n, (word, ms) in enumerate(calls, 1)]
        bench.executor.submit(made)
        await asyncio.sleep(0)
        bench.now_ms += 2_000 + PATIENCE_MS
        bench.executor.outcomes()
        ends = await bench.ends(2)
        left = bench.executor.in_flight()
        await bench.executor.close()
        return {end.request_id for end in ends}, left

    assert asyncio.run(make()) == ({2, 4}, 2)


@pytest.mark.parametrize(
    ("provider", "model", "reason"),
    [("nobody", "m", "there is no provider"), ("local", "/no/such.gguf", "there is no model")],
)
def test_a_provider_that_cannot_be_had_is_denied(provider, model, reason):
    [end] = ends_of(answer, a_call("cat", provider=provider, model=model))
    assert end.outcome is Outcome.DENIED
    assert end.reason.startswith(reason)


SLOW_PROVIDER = """
import asyncio
from contextlib import asynccontextmanager

log = []

@asynccontextmanager
async def connect(model):
    await asyncio.sleep(0)
    log.append(f"open {model}")
    yield object()
    log.append(f"close {model}")
"""


def test_a_provider_is_connected_once_and_closed_in_the_end(monkeypatch, tmp_path):
    tmp_path.joinpath("slow_provider.py").write_text(SLOW_PROVIDER)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(executor_module, "kind_of", lambda name: Kind("slow_provider", None, 1))

    async def connect():
        executor = LocalExecutor(lambda: 0, lambda: None)
        one, two, other = await asyncio.gather(*(executor.connect("slow", m) for m in "xxy"))
        assert one is two is not other
        await executor.close()

    asyncio.run(connect())
    log = sys.modules.pop("slow_provider").log
    assert log == ["open x", "open y", "close y", "close x"]


def test_an_unknown_provider_is_told_before_a_run():
    async def connect():
        await LocalExecutor(lambda: 0, lambda: None).connect("nobody", "x")

    with pytest.raises(CrawlerError, match="there is no provider 'nobody'"):
        asyncio.run(connect())


def test_what_is_given_up_was_interrupted_and_what_had_ended_had_ended():
    async def mixed(call):
        return await (never if call.word == "slow" else answer)(call)

    async def make():
        bench = Bench(mixed)
        bench.executor.submit([a_call("slow", 1), a_call("quick", 2), a_call("slow", 3)])
        await bench.ended.wait()
        await bench.executor.interrupt()
        assert bench.executor.in_flight() == 0
        return {end.request_id: end.outcome for end in bench.executor.outcomes()}

    assert asyncio.run(make()) == {
        1: Outcome.INTERRUPTED,
        2: Outcome.SUCCEEDED,
        3: Outcome.INTERRUPTED,
    }


def test_a_call_that_was_overdue_before_its_first_step_ends_all_the_same():
    """As after a sleep of the whole machine between the hand-over and the first step."""

    async def make():
        bench = Bench(answer)
        bench.executor.submit([a_call("cat")])
        bench.now_ms += 60_000
        bench.executor.outcomes()
        await asyncio.sleep(0)
        (end,) = bench.executor.outcomes()
        return end, bench.executor.in_flight()

    end, in_flight = asyncio.run(make())
    assert (end.outcome, end.reason) == (Outcome.TRANSIENT, "no answer within 10 s")
    assert in_flight == 0


def test_a_call_that_never_left_has_no_end():
    async def make():
        bench = Bench(answer)
        bench.executor.submit([a_call("cat")])
        await bench.executor.interrupt()
        return bench.executor.in_flight(), bench.executor.outcomes()

    assert asyncio.run(make()) == (0, [])


def test_a_call_that_will_not_be_given_up_is_left_behind(monkeypatch):
    monkeypatch.setattr(executor_module, "GIVE_UP_S", 0.01)

    async def make():
        thawed = asyncio.Event()

        async def stubborn(call):
            while not thawed.is_set():
                try:
                    await thawed.wait()
                except asyncio.CancelledError:
                    continue
            return Answer("late")

        bench = Bench(stubborn)
        bench.executor.submit([a_call("cat")])
        await asyncio.sleep(0)
        try:
            async with asyncio.timeout(5):
                await bench.executor.interrupt()
            assert (bench.executor.in_flight(), bench.executor.outcomes()) == (0, [])
        finally:
            thawed.set()
        await bench.ended.wait()
        assert bench.executor.in_flight() == 0

    asyncio.run(make())


odd_counts = st.one_of(
    st.none(),
    st.integers(),
    st.sampled_from([2**62, 2**63 - 1, 2**63, 10**400, -1]),
    st.floats(),
    st.text(),
    st.booleans(),
    st.lists(st.integers()),
)
odd_texts = st.one_of(
    st.text(alphabet=st.characters(categories=None), max_size=600),
    st.sampled_from(["\ud800", "a\udfffb" * 400, "\0", "\ufeff", ""]),
)


@given(
    outcome=st.sampled_from(Outcome),
    text=odd_texts,
    counts=st.tuples(odd_counts, odd_counts, odd_counts, odd_counts),
)
@example(outcome=Outcome.THROTTLED, text="x", counts=(None, 2**63 - 1, None, None))
@example(outcome=Outcome.TRANSIENT, text="x", counts=(None, 2**63 - 1, None, None))
@example(outcome=Outcome.THROTTLED, text="x", counts=(None, 2**62, None, None))
@example(outcome=Outcome.SUCCEEDED, text="a\ud800b", counts=(None, None, 2**63, -1))
@settings(max_examples=settings().max_examples if LONG else 30)
def test_whatever_a_provider_says_can_be_recorded(outcome, text, counts):
    status_code, retry_after_ms, tokens_in, tokens_out = counts

    async def say(call):
        if outcome is Outcome.SUCCEEDED:
            return Answer(text, tokens_in, tokens_out, tokens_in, text, text)
        raise ProviderError(
            outcome,
            text,
            status_code=status_code,
            retry_after_ms=retry_after_ms,
            answer=Answer(text, tokens_in, tokens_out, tokens_out, text, text),
        )

    with sqlite3.connect(":memory:", isolation_level=None) as conn:
        configure(conn, WriteLock(None), 0, 0)
        limit_id = put_limit(conn, "test", 1)
        prompt, _ = put_prompt(conn, PromptSpec("p", "{word}", "test", "m", {}), limit_id, 0)
        add_words(conn, prompt.id, [Word("cat", {})], 0)
        scope = Scope(
            run_id=start_run(conn, 1, "host", "0", 0),
            policy=Policy(),
            clock=lambda: 1_700_000_000_000,
            draw=random.Random(0).randint,
        )
        [lease] = turn(conn, scope, [], Allowance(1)).leases
        ends = ends_of(say, a_call("cat", lease.request_id, number=lease.number))
        assert turn(conn, scope, ends, Allowance(0)).late == 0
        assert [finding for finding in check(conn) if finding.broken] == []
        recorded = conn.execute("SELECT outcome FROM attempts").fetchall()
        later = conn.execute(
            "SELECT max(due_at_ms), max(gate_opens_at_ms) FROM requests, limits"
        ).fetchone()
    conn.close()
    empty = outcome is Outcome.SUCCEEDED and not text
    assert recorded == [(Outcome.NO_ANSWER if empty else outcome,)]
    assert max(later) < 1_700_000_000_000 + 32 * 86_400_000
