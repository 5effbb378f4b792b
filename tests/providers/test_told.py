"""What servers tell of their quotas, each family as it writes it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crawler.protocol import Told
from crawler.providers.refusals.said import Said
from crawler.providers.refusals.told import told_of


def told(headers=None, **facts):
    found = told_of(Said(facts.pop("status", 200), headers or {}, **facts))
    return [(one.what, one.limit, one.per) for one in found]


def limited(limit, remaining, reset, what="requests"):
    names = ("limit", "remaining", "reset")
    values = (limit, remaining, reset)
    return {f"x-ratelimit-{name}-{what}": v for name, v in zip(names, values, strict=True) if v}


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        (limited("600", "599", "100ms"), "minute"),
        (limited("60", "59", "1s"), "minute"),
        (limited("10000", "9999", "6ms"), "minute"),
        (limited("600", "0", "1m0s"), "minute"),
        (limited("600", "590", "45s"), "minute"),  # a fixed window, 45 s before its end
        (limited("10000", "9999", "8.64s"), "day"),
        (limited("14400", "14370", "2m59.56s"), "day"),
        (limited("1000", "997", "10.8s"), None),  # an hour
        (limited("10", "9", "1s"), None),  # ten seconds
        (limited("600", "599", ""), None),
        (limited("600", "", "1s"), None),
        (limited("600", "600", "0s"), None),
        (limited("600", "599", "soon"), None),
    ],
)
def test_the_window_follows_from_how_long_it_takes_to_be_full_again(headers, expected):
    (found,) = told(headers)
    assert found == ("requests", int(headers["x-ratelimit-limit-requests"]), expected)


def test_requests_of_groq_are_those_of_a_day_and_its_tokens_of_a_minute():
    headers = limited("14400", "14399", "42s") | limited("6000", "5900", "1s", "tokens")
    assert told(headers, service="api.groq.com") == [
        ("requests", 14_400, "day"),
        ("tokens", 6_000, "minute"),
    ]


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"anthropic-ratelimit-requests-limit": "50"}, [("requests", 50, "minute")]),
        ({"anthropic-ratelimit-tokens-limit": "40000"}, [("tokens", 40_000, "minute")]),
        ({"x-ratelimit-limit-req-minute": "60"}, [("requests", 60, "minute")]),
        ({"x-ratelimit-limit-tokens-minute": "9000"}, [("tokens", 9_000, "minute")]),
        ({"x-ratelimit-limit-requests-day": "500"}, [("requests", 500, "day")]),
        ({"ratelimit-policy": '"default";q=100;w=60'}, [("requests", 100, "minute")]),
        ({"ratelimit-policy": '"a";q=5;w=1, "b";q=9;w=86400'},
         [("requests", 5, None), ("requests", 9, "day")]),
        ({"ratelimit-limit": "100, 100;w=60"}, [("requests", 100, "minute")]),
        ({"ratelimit": '"default";r=50;t=30'}, []),
        ({"x-ratelimit-limit-requests": "-1"}, []),
        ({"x-ratelimit-limit-requests": "0"}, []),
        ({"x-ratelimit-limit-requests": "9" * 30}, []),
        ({"x-ratelimit-limit-requests": "many"}, []),
        ({}, []),
    ],
)  # fmt: skip
def test_names_and_policies_say_the_window(headers, expected):
    assert told(headers) == expected


def google(quota_id, value):
    return {"violations": [{"quotaMetric": "g/requests", "quotaId": quota_id, "quotaValue": value}]}


def test_google_names_the_quota_that_refuses():
    minute = google("GenerateRequestsPerMinutePerProjectPerModel-FreeTier", "15")
    info = {"metadata": {"quota_limit": "TokensPerMinute", "quota_limit_value": "32000"}}
    body = f'{{"error": {{"details": [{str(minute).replace(chr(39), chr(34))}]}}}}'
    assert told(status=429, body=body) == [("requests", 15, "minute")]
    details = [minute, google("GenerateRequestsPerDay", 50), info]
    assert told(status=None, code="RESOURCE_EXHAUSTED", details=details) == [
        ("requests", 15, "minute"),
        ("requests", 50, "day"),
        ("tokens", 32_000, "minute"),
    ]
    assert told(body=body) == [], "an answer says nothing of the kind"


@given(
    st.dictionaries(
        st.sampled_from([*limited("1", "1", "1"), "ratelimit-policy", "ratelimit-limit"]),
        st.text(max_size=40) | st.from_regex(r"\d{1,12}(ms|s|m)?", fullmatch=True),
    ),
    st.text(max_size=60),
)
def test_whatever_is_told_nothing_is_raised_and_a_limit_is_a_number(headers, body):
    for one in told_of(Said(429, headers, body, now_ms=1)):
        assert isinstance(one, Told)
        assert 0 < one.limit <= 10**9
