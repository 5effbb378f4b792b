"""Two prompts of one provider: the trouble of one stops no other; it ends when none can go on."""

import asyncio
import functools
import time
from dataclasses import replace

import pytest

from crawler.ledger import control
from crawler.protocol import Answer, ProviderError
from crawler.states import Outcome
from crawler.states.kinds import Kind
from tests.crawling import QUICK, Played, a_store, crawled, put, rows

COUNTS = (
    "SELECT name, succeeded, pending + leased FROM prompts JOIN tallies"
    " ON prompt_id = prompts.id ORDER BY name"
)


def in_a_loop(test):
    """Run a test in a loop of its own."""

    @functools.wraps(test)
    def run(*args, **facts):
        asyncio.run(test(*args, **facts))

    return run


def good(call):
    return Answer(f"about {call.word}")


def bad(outcome, kind=None, **facts):
    return Played(lambda _: ProviderError(outcome, "no", kind=kind, **facts))


async def crawled_in_a_hurry(store, given):
    """Make a run by a clock that hurries: a server is tried again after two seconds, three, so."""
    began_s, patient = time.monotonic(), replace(QUICK, guard_ms=10**9)

    def clock():
        return 10**12 + int((time.monotonic() - began_s) * 20_000)

    async with asyncio.timeout(30):
        return await crawled(store, given, patient, clock=clock)


@pytest.mark.parametrize(
    ("trouble", "reason"),
    [
        (bad(Outcome.THROTTLED, Kind.THROTTLED_DAY, retry_after_ms=86_400_000), "quota_day"),
        (bad(Outcome.REFUSED, Kind.PERMISSION_MODEL), "credentials"),
    ],
)
@in_a_loop
async def test_the_other_list_is_answered_first_also_over_restarts(trouble, reason):
    async with a_store("abcd", name="a", model="m", limit="scripted/m") as store:
        await store.run(lambda c: put(c, "abcdef", name="b", model="n", limit="scripted/n"))
        given = {"m": trouble, "n": Played(good)}
        for _ in range(2):
            ending = await crawled(store, given, max_calls=5)
            if ending.reason != "max_calls":
                break
        ending = await crawled(store, given)
        assert ending.reason == reason
        assert await rows(store, COUNTS) == [("a", 0, 4), ("b", 6, 0)]
        if reason == "quota_day":
            assert ending.limits == ("scripted/m",)


@in_a_loop
async def test_of_two_reasons_it_is_the_one_to_mend_first():
    async with a_store("abcd", name="a", model="m", limit="scripted/m") as store:
        await store.run(lambda c: put(c, "abcd", name="b", model="n", limit="scripted/n"))
        day = bad(Outcome.THROTTLED, Kind.THROTTLED_DAY, retry_after_ms=86_400_000)
        given = {"m": day, "n": bad(Outcome.REFUSED, Kind.MODEL_MISSING)}
        ending = await crawled(store, given)
        assert ending.reason == "configuration"
        assert await rows(store, COUNTS) == [("a", 0, 4), ("b", 0, 4)]


@in_a_loop
async def test_a_failed_word_of_another_prompt_keeps_no_run_waiting():
    async with a_store("abcd", name="a", model="m", limit="scripted/m") as store:
        await store.run(lambda c: put(c, "ab", name="b", model="n", limit="scripted/n"))
        day = bad(Outcome.THROTTLED, Kind.THROTTLED_DAY, retry_after_ms=86_400_000)
        blocked = Played(
            lambda c: ProviderError(Outcome.BLOCKED, "x") if c.word == "a" else good(c)
        )
        ending = await crawled(store, {"m": day, "n": blocked})
        assert ending.reason == "quota_day"


@in_a_loop
async def test_money_stops_both():
    async with a_store("abcd", name="a", model="m", limit="scripted/m") as store:
        await store.run(lambda c: put(c, "abcd", name="b", model="n", limit="scripted/n"))
        broke = bad(Outcome.NO_MONEY, Kind.MONEY)
        ending = await crawled(store, {"m": broke, "n": broke})
        assert (ending.reason, ending.unfinished) == ("no_money", 8)


@in_a_loop
async def test_a_pause_of_one_model_does_not_hide_that_nobody_is_reached():
    async with a_store("ab", name="a", model="m", limit="scripted/m") as store:
        await store.run(lambda c: put(c, "ab", name="b", model="n", limit="scripted/n"))
        await store.run(lambda c: control.pause(c, "scripted/n", 1))
        away = bad(Outcome.UNAVAILABLE, Kind.NETWORK)
        ending = await crawled_in_a_hurry(store, {"m": away, "n": away})
        assert (ending.reason, ending.unfinished) == ("unreachable", 4)


@in_a_loop
async def test_who_reaches_nobody_is_told_first_of_what_only_a_person_mends():
    async with a_store("ab", name="a", model="m", limit="scripted/m") as store:
        await store.run(lambda c: put(c, "ab", name="b", model="n", limit="other/n"))
        given = {
            "m": bad(Outcome.UNAVAILABLE, Kind.NETWORK),
            "n": bad(Outcome.DENIED, Kind.SETUP_KEY),
        }
        ending = await crawled_in_a_hurry(store, given)
        assert (ending.reason, ending.unfinished) == ("credentials", 4)
