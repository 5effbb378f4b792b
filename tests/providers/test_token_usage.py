"""Tokens are what is billed, whoever counts them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crawler.providers.answers.token_usage import UNKNOWN, openai_usage, vertex_usage
from crawler.providers.vertex.messages import GenerateContentResponse


def of(prompt, completion, total=None, thought=None, **more):
    details = {"completion_tokens_details": {"reasoning_tokens": thought}} if thought else {}
    return openai_usage(
        {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": total}
        | details
        | more
    )


@pytest.mark.parametrize(
    ("usage", "prompt", "text", "thoughts"),
    [
        (of(5, 7, 12), 5, 7, None),
        (of(5, 107, 112, 100), 5, 7, 100),  # thoughts are inside
        (of(5, 7, 112), 5, 7, 100),  # Gemini
        (of(5, 7, 112, 100), 5, 7, 100),  # xAI
        (of(9, 0, 109), 9, 0, 100),
        (of(5, 107, None, 100), 5, 7, 100),
        (of(5, 7, None, 100), 5, 7, 100),  # more than all: it can't be inside
        (of(5, 7, 3), 5, 7, None),
        (of(5, 7.0, 12), 5, 7, None),
        (openai_usage({"input_tokens": 5, "output_tokens": 7}), 5, 7, None),
    ],
)
def test_thoughts_are_inside_or_beside_by_the_total(usage, prompt, text, thoughts):
    assert usage[:3] == (prompt, text, thoughts)
    assert usage.out == text + (thoughts or 0)
    assert usage.total == prompt + usage.out


@pytest.mark.parametrize(
    "usage",
    [
        None,
        [],
        "12",
        {},
        {"prompt_tokens": "5", "completion_tokens": "many"},
        {"prompt_tokens": None, "completion_tokens": None},
        {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0},
        {"prompt_tokens": 2**70, "completion_tokens": -3},
        {"prompt_tokens": 10**9 + 1, "completion_tokens": True},
        {"prompt_tokens": [1], "completion_tokens": {"a": 1}},
        {"prompt_tokens": 5.5, "completion_tokens": float("nan")},
    ],
)
def test_what_can_not_be_so_is_unknown(usage):
    assert openai_usage(usage) == UNKNOWN


def test_a_part_may_be_unknown():
    usage = of(5, 10**12, 10**12 + 5)
    assert (usage.prompt, usage.text, usage.out, usage.total) == (5, None, None, None)


def test_cached_and_audio_tokens_of_openai():
    details = {"cached_tokens": 3, "audio_tokens": 1}
    usage = of(5, 7, 12, prompt_tokens_details=details)
    assert (usage.cached, usage.audio) == (3, 1)
    assert of(5, 7, 12, prompt_cache_hit_tokens=4).cached == 4  # DeepSeek
    answer = of(5, 7, 12, completion_tokens_details={"audio_tokens": 2}, prompt_tokens_details={})
    assert answer.audio == 2


def test_vertex_counts_thoughts_beside_the_answer():
    message = GenerateContentResponse.UsageMetadata(
        prompt_token_count=5,
        candidates_token_count=7,
        thoughts_token_count=100,
        total_token_count=112,
        cached_content_token_count=3,
    )
    assert vertex_usage(message) == (5, 7, 100, 3, None, None)
    plain = {"promptTokenCount": 5, "candidatesTokenCount": 7, "totalTokenCount": 112}
    assert vertex_usage(plain)[:3] == (5, 7, 100)


def test_vertex_leaves_out_a_count_of_nothing():
    only_thoughts = {"promptTokenCount": 9, "thoughtsTokenCount": 50, "totalTokenCount": 59}
    assert vertex_usage(only_thoughts)[:3] == (9, 0, 50)
    assert vertex_usage({"promptTokenCount": 9, "totalTokenCount": 9})[:3] == (9, 0, None)
    assert vertex_usage(GenerateContentResponse.UsageMetadata()) == UNKNOWN
    assert vertex_usage(None) == UNKNOWN


def test_vertex_counts_the_results_of_tools_with_the_prompt():
    plain = {
        "promptTokenCount": 5,
        "toolUsePromptTokenCount": 20,
        "candidatesTokenCount": 7,
        "totalTokenCount": 32,
        "promptTokensDetails": [
            {"modality": "TEXT", "tokenCount": 3},
            {"modality": "AUDIO", "tokenCount": 2},
        ],
    }
    assert vertex_usage(plain) == (25, 7, None, None, 2, 20)


NUMBERS = st.none() | st.integers() | st.floats() | st.text(max_size=3) | st.booleans()
NAMES = ["prompt", "completion", "total", "reasoning", "cached", "input"]


@given(st.dictionaries(st.sampled_from([f"{name}_tokens" for name in NAMES]), NUMBERS))
def test_whatever_is_counted_it_is_a_number_of_tokens_or_nothing(usage):
    nested = usage | {"completion_tokens_details": usage, "prompt_tokens_details": usage}
    found = openai_usage(nested)
    assert all(count is None or 0 <= count <= 2 * 10**9 for count in found)
    assert found.total is None or found.total >= 0
    vertex_usage(nested)


@pytest.mark.parametrize(("total", "thoughts"), [(12, 7), (19, 7), (25, 13), (None, 7)])
def test_vertex_is_believed_to_have_thought_what_it_says_at_the_least(total, thoughts):
    plain = {"promptTokenCount": 5, "candidatesTokenCount": 7, "thoughtsTokenCount": 7}
    assert vertex_usage(plain | {"totalTokenCount": total})[:3] == (5, 7, thoughts)
