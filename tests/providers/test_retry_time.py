"""Headers and bodies that tell when to come back, and how many of them are read."""

import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from crawler.providers.refusals.decision import refusal_of
from crawler.providers.refusals.retry_time import MOST_MS, pause_ms, read_time
from crawler.providers.refusals.said import Said

NOW_MS = 1_795_817_700_000  # 2026-11-27T22:15:00Z
HOUR = 3_600_000
DATE = "Fri, 27 Nov 2026 22:15:00 GMT"

# Headers, body, milliseconds. Each is a form that some server uses.
TIMES = [
    ({"Retry-After": "20"}, "", 20_000),
    ({"retry-after": "1.5"}, "", 1_500),
    ({"Retry-After": "20s"}, "", 20_000),
    ({"Retry-After": "1m30.5s"}, "", 90_500),
    ({"Retry-After": "20ms"}, "", 20),
    ({"retry-after-ms": "900"}, "", 900),
    ({"retry-after-ms": "1200.5", "retry-after": "2"}, "", 1_200),
    ({"Retry-After": "Fri, 27 Nov 2026 22:16:00 GMT", "Date": DATE}, "", 60_000),
    # Our clock is an hour wrong: the server's own date is what counts.
    (
        {
            "Retry-After": "Fri, 27 Nov 2026 21:16:00 GMT",
            "Date": "Fri, 27 Nov 2026 21:15:00 GMT",
        },
        "",
        60_000,
    ),
    ({"Retry-After": "2026-11-27T22:16:00Z"}, "", 60_000),
    ({"Retry-After": "1795817760"}, "", 60_000),
    ({"Retry-After": "1795817760000"}, "", 60_000),
    ({"Retry-After": "soon", "x-ratelimit-reset-requests": "1m30s"}, "", 90_000),
    ({}, "Please try again in 7m12s. Visit the console.", 432_000),
    ({}, "Please try again in 20s.", 20_000),
    ({}, "Please try again in 8.64s.", 8_640),
    ({}, "Please try again in 12ms.", 12),
    ({}, "Please try again in 1m26.4s", 86_400),
    ({}, "try again in 9m38.016s", 578_016),
    ({}, "try again in 1h2m3s", 3_723_000),
    ({}, "try again in 2 minutes 30 seconds", 150_000),
    ({}, "Try again in an hour", HOUR),
    ({}, "Please retry after 37 seconds.", 37_000),
    ({}, "Your rate limit resets in ~24s.", 24_000),
    ({"x-ms-retry-after-ms": "1500"}, "", 1_500),
    ({"x-retry-after": "12"}, "", 12_000),
    ({"Retry-After": "60, 60"}, "", 60_000),
    ({}, '{"retry_after_ms": 1200}', 1_200),
    ({}, '{"retryAfterMs": 1200}', 1_200),
    ({}, '{"retry_after_seconds": 12}', 12_000),
    ({}, '{"reset_at": "2026-11-27T22:20:00Z"}', 300_000),
    ({}, "Please retry your requests after 5 seconds", 5_000),
    ({}, "There is a cooldown of 30 seconds", 30_000),
    ({}, "Please retry in 20.04466179s", 20_045),
    ({}, "Please retry in 900ms", 900),
    ({}, '{"error": {"details": [{"@type": "RetryInfo", "retryDelay": "43s"}]}}', 43_000),
    ({}, '{"details": [{"retryDelay": "34.074824224s"}]}', 34_074),
    ({}, "retry_delay { seconds: 43 }", 43_000),
    ({}, "retry_delay {\n  seconds: 9\n}", 9_000),
    ({}, "Rate limit is exceeded. Try again in 12 seconds.", 12_000),
    ({}, "Limit resets at: 2026-11-27 22:16:00 UTC", 60_000),
    ({}, "You will regain access on 2026-11-28 at 00:00 UTC.", 6_300_000),
    ({}, "Quota will be replenished in 01:14:23.", 4_463_000),
    ({}, "Quota will be replenished in 20.09:58:55.", 1_763_935_000),
    ({}, '{"error": "Model x is currently loading", "estimated_time": 20.0}', 20_000),
    ({}, "Expected available in 1 second", 1_000),
    ({}, "<html>Please try again in 30 seconds.</html>", 30_000),
    ({}, '{"metadata": {"headers": {"X-RateLimit-Reset": "1795817760000"}}}', 60_000),
    ({}, "usage limit, resets at 2026-11-28T00:15:00+00:00", 7_200_000),
    ({}, "resets at 2026-11-28T00:15:00+01:00", HOUR),
    ({}, '{"retry_after": 3.5}', 3_500),
    ({"x-ratelimit-reset-requests": "2m59.56s", "x-ratelimit-reset-tokens": "7.66s"}, "", 7_660),
    (
        {
            "x-ratelimit-remaining-requests": "0",
            "x-ratelimit-reset-requests": "1m0s",
            "x-ratelimit-remaining-tokens": "900",
            "x-ratelimit-reset-tokens": "1s",
        },
        "",
        60_000,
    ),
    ({"x-ratelimit-reset": "1795817760"}, "", 60_000),
    ({"anthropic-ratelimit-input-tokens-reset": "2026-11-27T22:16:00Z"}, "", 60_000),
    ({"ratelimitbysize-reset": "40"}, "", 40_000),
    ({"x-ratelimit-reset-tokens-minute": "14.2"}, "", 14_200),
    ({"x-ratelimit-reset-requests-day": "3600.5", "retry-after": "5"}, "", 5_000),
    ({"NVCF-POLL-SECONDS": "60"}, "", 60_000),
    ({"RateLimit": '"default";r=0;t=17'}, "", 17_000),
]

NO_TIMES = [
    ({}, ""),
    ({"Retry-After": "0"}, ""),
    ({"Retry-After": "-5"}, ""),
    ({"Retry-After": ""}, ""),
    ({"retry-after-ms": "-5"}, ""),
    ({"retry-after-ms": "nan"}, ""),
    ({"retry-after-ms": "inf"}, ""),
    ({"Retry-After": "soon"}, ""),
    ({"Retry-After": "nan"}, ""),
    ({"Retry-After": "1e999"}, ""),
    ({"Retry-After": "99999999999999999999"}, ""),
    ({"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT", "Date": DATE}, ""),
    ({"Retry-After": "2026-13-45T99:99:99Z"}, ""),
    ({}, "Please try again later."),
    ({}, "Please wait a moment and try again."),
    ({}, "Please retry the request and contact support."),
    ({"x-ratelimit-reset-requests-day": "3600.5"}, ""),
    ({"x-ratelimit-reset-requests": "58s", "x-ratelimit-remaining-requests": "119"}, ""),
    ({"x-ratelimit-limit-requests": "20"}, ""),
]


def test_of_the_times_that_are_told_nearly_all_are_read():
    assert len(TIMES) >= 45
    misread = [
        (headers, body, told, found)
        for headers, body, told in TIMES
        if (found := pause_ms(headers, body, NOW_MS)) is None or abs(found - told) > 1
    ]
    assert misread == []


@pytest.mark.parametrize(("headers", "body"), NO_TIMES)
def test_what_tells_no_time_is_no_advice(headers, body):
    assert pause_ms(headers, body, NOW_MS) is None


def test_the_delay_of_a_grpc_status_comes_before_its_words():
    assert pause_ms({}, "try again in 5s", NOW_MS, ["43s"]) == 43_000


def test_a_short_delay_beside_a_quota_of_the_day_means_the_minute():
    body = (
        '{"error": {"code": 429, "message": "You exceeded your current quota.'
        ' Please retry in 31s.", "status": "RESOURCE_EXHAUSTED",'
        ' "details": [{"violations": [{"quotaId": "GenerateRequestsPerDay-FreeTier"}]},'
        ' {"retryDelay": "31s"}]}}'
    )
    refusal = refusal_of(Said(429, {}, body, now_ms=NOW_MS))
    assert (refusal.kind, refusal.retry_after_ms) == ("throttled_day", None)


def test_a_rolling_day_is_believed():
    body = (
        "Rate limit reached on requests per day (RPD): Limit 9, Used 9. Please try again in 8.64s."
    )
    refusal = refusal_of(Said(429, {}, body, now_ms=NOW_MS))
    assert (refusal.kind, refusal.retry_after_ms) == ("throttled_day", 8_640)


TEXTS = st.text(st.sampled_from('0123456789.:-TZ smhd,+try again in retry_after{}"é'), max_size=99)


@pytest.mark.parametrize("date", ["Sun Nov  6 08:50:37 1994", "Sun, 06 Nov 1994 08:50:37 -0000"])
def test_a_time_without_a_zone_is_utc(monkeypatch, date):
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        assert pause_ms({"Retry-After": date}, "", 784_111_777_000) == 60_000
    finally:
        monkeypatch.undo()
        time.tzset()


@given(TEXTS, TEXTS, st.integers(0, 2**50))
@example("9" * 5_000, "", 0)
@example("²", "²", 0)
@example("1e308", "1e308s", 0)
@example("Mon, 01 Jan 0001 00:00:00 +2359", "", 1_700_000_000_500)
def test_whatever_is_said_it_is_a_pause_or_nothing(header, body, now_ms):
    headers = {"Retry-After": header, "retry-after-ms": header, "x-ratelimit-reset": header}
    found = pause_ms({**headers, "Date": header}, f"try again in {body}", now_ms, [header])
    assert found is None or 0 < found <= MOST_MS
    read_time(header, now_ms)


@pytest.mark.parametrize("piece", ["try again in ", "resets at 2026-", "1", "1s", " ", "wait for "])
def test_a_megabyte_takes_little_time(piece):
    text = (piece * 2**20)[: 2**20]
    began = time.process_time()
    pause_ms({"Retry-After": text}, text, NOW_MS)
    assert time.process_time() - began < 0.5
