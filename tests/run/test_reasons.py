"""Several things that end a run at once, and what others may read of how far it goes."""

import asyncio

import pytest

from crawler.clock import boot_id
from crawler.errors import CrawlerError
from crawler.ledger import control, intake
from crawler.ledger.budget import ANYTHING
from crawler.ledger.doubt import Doubt
from crawler.ledger.limits import put_limit
from crawler.ledger.runs import Selection
from crawler.ledger.turn import Gate
from crawler.policy import Policy
from crawler.protocol import Answer, ProviderError, Word
from crawler.run.ending import Ending, Reason, RunOptions, error_of, held_ending
from crawler.states import Outcome
from crawler.states.kinds import Kind
from crawler.storage.store import open_store
from tests.crawling import Played, a_store, crawled, put, rows
from tests.run.test_ends import Heard
from tests.run.test_takeover import LONG_AGO_MS, leave_open

NOW_MS = 1_000_000
PATIENCE_MS = 900_000


def day(opens_in_ms, limit="one"):
    """Return a gate that has closed just now for the quota of a day."""
    return Gate(NOW_MS + opens_in_ms, NOW_MS, NOW_MS, 1, "day", limit)


def held(*gates, stops=()):
    return held_ending(list(stops), list(gates), 7, PATIENCE_MS, NOW_MS)


def test_one_limit_that_opens_soon_keeps_a_run_going_whatever_the_others_do():
    soon, late = day(PATIENCE_MS - 1, "soon"), day(PATIENCE_MS, "late")
    stopped = Doubt(1, Kind.PERMISSION_MODEL, 0, "no", (1,))
    for gates in ((soon, late), (late, soon), (late, soon, late)):
        assert held(*gates) is None
        assert held(*gates, stops=[stopped]) is None
    assert held(late).reason == Reason.QUOTA_DAY
    assert held(late, stops=[stopped]).reason == Reason.CREDENTIALS
    assert held() is None


def test_all_limits_that_wait_are_told_with_the_time_of_the_first():
    ending = held(day(3 * PATIENCE_MS, "a"), day(2 * PATIENCE_MS, "b"), day(4 * PATIENCE_MS, "c"))
    assert (ending.limits, ending.opens_at_ms) == (("a", "b", "c"), NOW_MS + 2 * PATIENCE_MS)
    error = error_of(ending)
    assert error.what.startswith("the quota of the day is used up for a, b, c;")
    assert error.cause == "the quota opens at 1970-01-01T00:46:40Z"


def test_a_quota_that_is_no_days_is_not_told_as_one():
    ending = Ending(Reason.QUOTA_DAY, "quota", 1, opens_at_ms=NOW_MS)
    assert error_of(ending).what == "the quota is used up; what is left stays pending"


@pytest.mark.parametrize(
    ("reason", "detail", "what"),
    [
        (Reason.UNREACHABLE, None, "the server is out of order"),
        (Reason.UNREACHABLE, "nobody there", "the server can't be reached"),
        (Reason.MAX_TOKENS, None, "the budget is used up"),
        (Reason.CONFIGURATION, None, "the provider rejects one request after another"),
    ],
)
def test_an_outage_is_not_told_as_an_address_that_is_wrong(reason, detail, what):
    assert error_of(Ending(reason, detail, 0)).what == what


@pytest.mark.parametrize(
    ("price_in", "price_out", "reason"),
    [
        (1.0, 1.0, Reason.MAX_TOKENS),
        (2.0, 1.0, Reason.BUDGET),
        (1.0, 2.0, Reason.BUDGET),
        (0.0, 0.0, Reason.BUDGET),
    ],
)
def test_a_budget_is_money_where_either_price_is_given(price_in, price_out, reason):
    purse = ANYTHING._replace(budget=5.0, price_in=price_in, price_out=price_out)
    assert RunOptions(budget=purse).over_budget is reason


def test_what_is_0_is_on_record_and_what_was_not_given_is_not():
    purse = ANYTHING._replace(budget=0.0, price_out=0.0)
    selected = Selection(prompt_ids=())
    options = RunOptions(max_calls=0, deadline_ms=0, budget=purse, selection=selected)
    assert options.on_record(NOW_MS) == {
        "prompt_ids": (),
        "max_calls": 0,
        "deadline_at_ms": NOW_MS,
        "budget": 0.0,
        "price_in": 1.0,
        "price_out": 0.0,
    }
    assert RunOptions().on_record(NOW_MS) == {}
    assert RunOptions(deadline_ms=5).on_record(NOW_MS) == {"deadline_at_ms": NOW_MS + 5}


@pytest.mark.parametrize(("silent_ms", "dead"), [(15_000, False), (15_001, True)])
def test_no_run_is_given_up_before_its_heart_had_time_to_beat(silent_ms, dead):
    """Its own policy may let it take longer than the policy of whoever looks at it."""
    now_ms = LONG_AGO_MS + 10**9

    async def main():
        async with a_store("ab") as store:
            await store.run(leave_open, 11, [1], now_ms - silent_ms, boot_id())
            provider = Played(lambda call: Answer("x"))
            hasty = Policy(call_timeout_ms=1_000, lost_after_ms=3_001)
            await crawled(store, provider, hasty, clock=lambda: now_ms, max_calls=1 + dead)
            assert sorted(provider.words) == (["a", "b"] if dead else ["b"])

    asyncio.run(main())


@pytest.mark.parametrize(
    ("answer", "reason"),
    [(Answer("x"), "finished"), (ProviderError(Outcome.BLOCKED, "no"), "failures")],
)
def test_a_run_for_one_request_ends_as_that_one_did(answer, reason):
    """Others have failed, and others are answered: that says nothing of it."""

    async def main():
        async with a_store("abc") as store:
            others = {"a": ProviderError(Outcome.BLOCKED, "no"), "b": Answer("x")}
            provider = Played(lambda call: others.get(call.word, answer))
            for request_id in (1, 2):
                await crawled(store, provider, selection=Selection(request_ids=(request_id,)))
            ending = await crawled(store, provider, selection=Selection(request_ids=(3,)))
            assert (ending.reason, ending.unfinished) == (reason, 0)
            assert provider.words == [*"abc"]

    asyncio.run(main())


@pytest.mark.parametrize("first", ["scripted", "openai"])
def test_no_run_begins_unless_all_who_have_work_can_be_had(monkeypatch, first):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    second = {"scripted": "openai", "openai": "scripted"}[first]

    def ask(conn, name, provider):
        spec = intake.PromptSpec(name, "About {word}", provider, "m", {})
        prompt, _ = intake.put_prompt(conn, spec, put_limit(conn, provider, 4), 1)
        intake.add_words(conn, prompt.id, [Word("a", {})], 1)

    async def main():
        async with open_store(None) as store:
            await store.run(ask, "p", first)
            await store.run(ask, "q", second)
            provider = Played(lambda call: Answer("x"))
            with pytest.raises(CrawlerError, match=r"no key for api\.openai\.com"):
                await crawled(store, provider)
            assert (provider.calls, await rows(store, "SELECT * FROM runs")) == ([], [])

    asyncio.run(main())


def test_who_has_nothing_left_to_do_need_not_be_had(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)

    def unasked(conn):
        spec = intake.PromptSpec("q", "About {word}", "openai", "m", {})
        intake.put_prompt(conn, spec, put_limit(conn, "openai", 4), 1)

    async def main():
        async with a_store("a") as store:
            await store.run(unasked)
            ending = await crawled(store, Played(lambda call: Answer("x")))
            assert ending.reason == "finished"

    asyncio.run(main())


def test_a_deadline_is_told_though_another_prompt_is_stopped():
    async def main():
        async with a_store("ab", model="m") as store:
            await store.run(put, "ab", name="q", model="n", limit="other")
            await store.run(lambda conn: control.pause(conn, "quota", 1))
            denied = ProviderError(Outcome.REFUSED, "no", kind=Kind.PERMISSION_MODEL)
            given = {"m": Played(lambda call: Answer("x")), "n": Played(lambda call: denied)}
            ending = await crawled(store, given, deadline_ms=200)
            assert (ending.reason, ending.detail, ending.unfinished) == ("deadline", None, 4)

    asyncio.run(main())


def test_a_log_names_the_run_and_counts_what_it_took_over(tmp_path):
    async def main():
        heard = Heard()
        async with a_store("abc", tmp_path / "c.db") as store:
            await store.run(leave_open, 11, [1, 2])
            tmp_path.joinpath("c.db-run-11").touch()
            await crawled(store, Played(lambda call: Answer("x")), log=heard.log)
        [started], [taken] = heard.told("run_started"), heard.told("attempts_abandoned")
        assert started["run_id"] == 12
        assert (taken["of_run_id"], taken["attempts"], taken["reason"]) == (11, 2, "died")

    asyncio.run(main())
