"""What a refusal means: the rules, one by one, where they are easily mistaken for each other."""

import json
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from crawler.providers.answers.finish_reasons import End
from crawler.providers.openai.answer import read_body
from crawler.providers.refusals.decision import broken_connection, refusal_of
from crawler.providers.refusals.said import Said, plain
from crawler.states.kinds import Kind, Scope


def error(message, **fields):
    return json.dumps({"error": {"message": message, **fields}})


def kind(status, message, **more):
    return refusal_of(Said(status, {}, error(message), **more)).kind


@pytest.mark.parametrize(
    ("status", "message", "found"),
    [
        # The same words, two meanings.
        (429, "You exceeded your current quota, check your plan and billing details.", "money"),
        (
            429,
            "You exceeded your current quota. Please retry in 20s. generativelanguage",
            "throttl",
        ),
        (
            429,
            "Rate limit reached on tokens per min: Limit 9000, Used 8000, Requested 2000",
            "throt",
        ),
        (429, "Rate limit reached on tokens per min: Limit 9000, Requested 9001", "too_large"),
        (429, "token rate limit exceeded. Please retry after 86400 seconds", "too_large"),
        (429, "Quota exceeded, limit: 0, model: x", "permission_model"),
        (429, "Quota exceeded, limit: 0.5, model: x", "throttled_minute"),
        (429, "limited to 1000 API calls / month. Upgrade, see billing", "throttled_day"),
        (429, "limited to 40 API calls / minute. Upgrade, see billing", "throttled_minute"),
        (429, "model is overloaded", "overloaded"),
        (429, "too many concurrent requests", "concurrency"),
        (400, "Your credit balance is too low", "money"),
        (403, "Your account is suspended", "money"),
        (412, "Account suspended: failure to pay past invoices", "money"),
        (402, "anything at all", "money"),
        (403, "Your input was flagged by moderation", "blocked"),
        (403, "You do not have access to this model", "permission_model"),
        (400, "API key not valid. Please pass a valid API key.", "credentials"),
        (400, "This model's maximum context length is 8192 tokens", "word"),
        (400, "Unsupported parameter: 'max_tokens'", "parameter"),
        (400, "something that nobody has a name for", "unclear"),
        (418, "something that nobody has a name for", "unclear"),
        (404, "default backend - 404", "configuration"),
        (404, "The model `x` has been deprecated", "model_missing"),
        (503, "The model is loading", "model_loading"),
        (503, "scaled to zero, starting", "model_loading"),
        (599, "something", "transient"),
        # Too many tokens, but none of the input.
        (400, "thinking.budget_tokens exceeds the maximum of 24576", "unclear"),
        (400, "stop tokens given exceeds the maximum", "unclear"),
        (400, "tokens in logit_bias exceed the vocabulary", "unclear"),
        (400, "requested number of tokens 9000 exceeds the model's maximum", "unclear"),
        (400, "reasoning tokens of the prompt exceed the maximum", "unclear"),
        # The name of a model is no verdict on the input.
        (404, "The model `prompt-injection-detector` does not exist", "model_missing"),
        (404, "model 'qwen3-jailbreak' not found", "model_missing"),
        (400, "model 'censor-tuned:8b' not found", "model_missing"),
        (404, "unknown model: hallucination-judge", "model_missing"),
        # A day that is named in passing.
        (0, "Rate limit for today's traffic: retry in 2s. limit 60 per minute", "throttled_minute"),
        (
            429,
            "Rate limit for today's traffic: retry in 2s. limit 60 per minute",
            "throttled_minute",
        ),
        (0, "busy for today's peak hours, please retry in 5 seconds", "overloaded"),
        (429, "busy for today's peak hours, please retry in 5 seconds", "overloaded"),
        (429, "No more messages this week, retry in 5 seconds", "throttled_minute"),
        (429, "You have used all of your messages for today", "throttled_day"),
        (429, "No more messages this month, retry in 2 days", "throttled_day"),
        (0, "You have used all of your messages for today", "transient"),
        (0, "Rate limit reached for today", "throttled_day"),
        (0, "no answer from http://host/daily/v1", "transient"),
        (0, "Your daily quota is exceeded", "throttled_day"),
        # What sounds like a quota of ours.
        (400, "Invalid value for rate_limited_by", "unclear"),
        (400, "Rate limit exceeded", "throttled_minute"),
        (403, "Too many requests", "throttled_minute"),
        (500, "too many requests queued, overloaded", "overloaded"),
        (500, "too many requests", "throttled_minute"),
    ],
)
def test_words_and_status_together_say_what_is_meant(status, message, found):
    assert kind(status, message).startswith(found)


def test_the_whole_text_is_read():
    said = f"{'We are sorry. ' * 2_000}Your credit balance is too low."
    assert kind(400, said) is Kind.MONEY
    inner = error("Provider returned error", metadata={"raw": "prompt is too long"})
    assert refusal_of(Said(400, {}, inner)).kind is Kind.WORD


def test_what_a_server_quotes_of_a_request_is_not_what_it_says():
    detail = {"loc": ["body", "x"], "msg": "Extra inputs are not permitted", "input": "suspended"}
    assert refusal_of(Said(422, {}, json.dumps({"detail": [detail]}))).kind is Kind.PARAMETER
    sent = "Tell me what suspended means"
    for body in (error(f"can't read {sent!r}"), json.dumps({"error": {"messages": [sent]}})):
        assert refusal_of(Said(400, {}, body)).kind is Kind.MONEY
        assert refusal_of(Said(400, {}, body, sent=sent)).kind is Kind.UNCLEAR
    short = error("Your account is suspended")
    assert refusal_of(Said(400, {}, short, sent="suspended")).kind is Kind.MONEY
    flagged = error("Your input was flagged", metadata={"flagged_input": "no credits left"})
    assert refusal_of(Said(403, {}, flagged)).kind is Kind.BLOCKED


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ({"errors": {"input": ["is too long"]}}, Kind.WORD),
        ({"error": {"input": "must not be empty"}}, Kind.WORD),
        ({"error": "refused", "input": "account is suspended"}, Kind.UNCLEAR),
        ({"errors": {"input": "is suspended"}}, Kind.UNCLEAR),
    ],
)
def test_under_the_name_of_the_input_stands_its_fault_or_what_was_sent(body, found):
    said = Said(422, {}, json.dumps(body), sent="it is suspended")
    assert refusal_of(said).kind is found


@pytest.mark.parametrize(
    ("message", "found"),
    [
        ("The prompt has 9000 tokens, which exceeds the limit of 8192", Kind.WORD),
        ("max_tokens is 9000 tokens and exceeds the limit of 8192", Kind.PARAMETER),
    ],
)
def test_too_many_tokens_of_a_prompt_are_the_words_and_those_of_an_answer_are_ours(message, found):
    assert kind(400, message) is found


def test_a_403_that_says_nothing_is_a_key_at_first_and_a_doubt_after_others_were_served():
    cold, warm = (kind(403, "Forbidden", served_before=served) for served in (False, True))
    assert (cold, warm) == (Kind.CREDENTIALS, Kind.FORBIDDEN)


def test_mistral_answers_a_used_up_budget_like_a_wrong_key():
    said = Said(401, {}, '{"detail": "Unauthorized"}', service="api.mistral.ai")
    assert refusal_of(said).kind is Kind.CREDENTIALS
    warm = refusal_of(said._replace(served_before=True))
    assert warm[:3] == (Kind.MONEY, Scope.ACCOUNT, False)  # uncertain: asked again first


def test_what_a_status_alone_says_is_not_certain():
    assert not refusal_of(Said(404, {}, "")).certain
    assert not refusal_of(Said(400, {}, "?")).certain
    assert refusal_of(Said(404, {}, "default backend - 404")).certain
    assert refusal_of(Said(402, {}, "")).certain


def test_a_limit_that_may_be_too_small_for_every_word_is_not_certain_before_one_has_passed():
    message = "maximum context length is 8192. You requested 9000 (300, 8700 in the completion)"
    cold, warm = (
        refusal_of(Said(400, {}, error(message), served_before=served)) for served in (False, True)
    )
    assert (cold.kind, cold.certain, warm.certain) == (Kind.WORD, False, True)


@pytest.mark.parametrize(
    ("location", "found"),
    [
        ("https://x/v1/chat/completions", Kind.CONFIGURATION),
        ("https://accounts.google.com/o/oauth2/v2/auth", Kind.CREDENTIALS),
        ("http://portal.hotel/login", Kind.NETWORK_BLOCKED),
        ("", Kind.CONFIGURATION),
    ],
)
def test_a_redirect_is_told_and_not_followed(location, found):
    assert refusal_of(Said(307, {"Location": location})).kind is found


def test_the_name_of_an_error_stands_for_its_code():
    for value, found in (
        ({"type": "overloaded_error", "message": "?"}, Kind.OVERLOADED),
        ({"code": "402", "message": "?"}, Kind.MONEY),
        ({"type": "authentication_error", "message": "?"}, Kind.CREDENTIALS),
        ({"message": "?"}, Kind.TRANSIENT),
    ):
        assert refusal_of(Said(None, {}, json.dumps({"error": value}))).kind is found


def test_a_grpc_status_has_its_details_read():
    quota = {"violations": [{"quotaId": "GenerateRequestsPerDayPerProjectPerModel"}]}
    said = Said(None, {}, "Quota exceeded", "RESOURCE_EXHAUSTED", [quota])
    refusal = refusal_of(said)
    assert (refusal.kind, refusal.status_code) == (Kind.THROTTLED_DAY, 429)
    retry = refusal_of(said._replace(details=[{"retryDelay": "9s"}]))
    assert (retry.kind, retry.retry_after_ms) == (Kind.THROTTLED_MINUTE, 9_000)


def test_a_stream_that_was_reset_unprocessed_is_asked_again_at_once():
    said = Said(None, {}, "RST_STREAM with error code 7", "UNAVAILABLE")
    assert refusal_of(said)[::5] == (Kind.TRANSIENT, 0)


def test_reasons_are_sentences_without_a_key():
    for body, reason in (
        (error("Slow  down\n please", code="slow_down"), "HTTP 429: Slow down please"),
        ('{"detail": [{"loc": ["body"], "msg": "Field required"}]}', "HTTP 429: Field required"),
        ("<html><head><title>502 Bad Gateway</title></head></html>", "HTTP 429: 502 Bad Gateway"),
        ('{"error": {"metadata": {"raw": "busy"}, "message": "Error"}}', "HTTP 429: busy"),
        ("", "HTTP 429: Too Many Requests"),
        (error("key sk-1234567890 \x1b[31m"), "HTTP 429: key …"),
    ):
        found = refusal_of(Said(429, {"X": "secret"}, body, secrets=["sk-1234567890"]))
        assert found.reason.startswith(reason)
        assert found.reason.isprintable()


def test_a_connection_that_failed_is_the_networks_or_ours():
    assert broken_connection("refused", "refused")[:2] == (Kind.NETWORK, Scope.NETWORK)
    assert "http://" in broken_connection("tls", "wrong version").remedy


def test_words_are_written_in_one_way():
    assert plain("PerDay per_day per-day 6/min don't x.y 1.5.").words == (
        " per day per day per day 6 / min dont x y 1.5 "
    )


NAMES = st.sampled_from(
    "error errors code message type status choices message delta content reasoning text detail"
    " metadata raw usage promptFeedback finish_reason base_resp details".split()
) | st.text(max_size=3)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=9,
)
STATUSES = st.none() | st.integers(0, 999)


@given(STATUSES, JSON | st.dictionaries(NAMES, JSON), st.booleans())
@example(None, ["\x1b"], False)
def test_whatever_is_said_in_json_it_is_one_refusal(status, value, served):
    said = Said(status, {"Retry-After": str(value)[:40]}, json.dumps(value), served_before=served)
    assert refusal_of(said).reason
    assert read_body(said)


@given(STATUSES, st.binary(max_size=300) | st.text(max_size=300), st.text(max_size=20))
def test_whatever_is_said_it_is_one_refusal(status, body, code):
    said = Said(status, {"server": code}, body, code)
    assert refusal_of(said).reason
    assert read_body(said).written.end in End


PIECES = ["a", "model ", " limit ", "[", '{"a":', " ", ". ", "<", "aA", "9", "<think>", '{"a":1}']


@pytest.mark.parametrize(
    "piece", [*PIECES, "data: {}\n\n", "\n", "</think>", "<|channel|>", "```\n"]
)
def test_a_megabyte_takes_linear_time(piece):
    took = []
    for size in (2**18, 2**20):
        body = (piece * size)[:size].encode()
        began = time.process_time()
        refusal_of(Said(429, {}, body))
        read_body(Said(200, {}, body))
        took.append(time.process_time() - began)
    assert took[1] < 2
    assert took[1] < 10 * took[0] + 0.1
